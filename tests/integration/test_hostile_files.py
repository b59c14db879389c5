"""Outputs of an instance that gives out something else, stands still, breaks off, or overwrites its files."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.integration.graphs import Graph, loaded, node, painted, slow
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess
from tests.sshd import Sshd

CANCELLED_WITHIN_S = 5.0


def saved_as(color: int, *, filename: str = "final.png", with_graph: bool = True, steps: int = 0) -> Graph:
    """A picture of one colour, which is saved under a fixed name."""
    graph = painted(color)
    if steps:
        graph["2"] = node("SandboxSlow", image=["1", 0], steps=steps, seconds_per_step=0.0)
    graph["3"] = node("SandboxSaveAs", image=["2", 0], filename=filename, with_graph=with_graph)
    return graph


def color_of(done: dict[str, Any]) -> int:
    """The content of its only output; the graph inverts it."""
    red, green, blue = Image.open(done["outputs"][0]["local_path"]).convert("RGB").getpixel((0, 0))
    return 0xFFFFFF - (red << 16 | green << 8 | blue)


def until_part_is_here(server: ServerProcess, at_least_bytes: int) -> None:
    deadline = time.monotonic() + 30
    while not any(part.stat().st_size >= at_least_bytes for part in server.output_dir.glob(".*.part")):
        assert time.monotonic() < deadline, list(server.output_dir.iterdir())
        time.sleep(0.01)


def fattened(server: ServerProcess, sandbox: SandboxProcess, size_bytes: int) -> str:
    """A run that fetches a large file of random bytes behind a picture: its id, just before it ends."""
    sandbox.faults(step_delay_s=0.1)
    graph = slow(4, steps=400, seconds_per_step=0.0) | {
        "4": node("EmptyImage", width=8, height=8, batch_size=1, color=1),
        "5": node("SaveImage", images=["4", 0], filename_prefix="large"),
    }
    run = server.execute(sandbox.ssh_string, graph)
    server.until(run, lambda p: p["current_node"] == "SandboxSlow" and (sandbox.output_dir / LARGE).exists())
    with (sandbox.output_dir / LARGE).open("ab") as file:
        for number in range(size_bytes // 1_000_000):
            file.write(bytes([number]) * 1_000_000)
    return run


LARGE = "large_00001_.png"


@pytest.mark.parametrize("mode", ["redirect", "203", "html"])
def test_a_login_page_is_no_picture_and_a_retry_fetches_it(
    server: ServerProcess, sandbox: SandboxProcess, tmp_path: Path, mode: str
) -> None:
    """A machine without SFTP, where files can only go through the tunnel."""
    sandbox.faults(answers=[{"path": "/view", "mode": mode, "method": "GET", "times": 1_000_000}])
    with Sshd(tmp_path / "sshd") as sshd:
        sshd.stop()
        sshd.add_config("ForceCommand /bin/false")
        sshd.start()
        run = server.execute(sshd.ssh_string(comfyui_port=sandbox.comfyui_port), painted(3))
        done = server.until_finished(run)
        assert (done["status"], done["error_code"]) == ("failed", "outputs_missing")
        assert not list(server.output_dir.iterdir())
        sandbox.faults(answers=[])
        assert server.post(f"/{run}/retry").status_code == 200
        done = server.until_finished(run)
    assert (done["status"], color_of(done)) == ("completed", 3)
    assert len(sandbox.executions()) == 1


def test_a_page_under_the_name_of_a_picture_is_none(server: ServerProcess, sandbox: SandboxProcess) -> None:
    """Neither by SFTP nor through the tunnel."""
    run = server.execute(sandbox.ssh_string, slow(4, steps=100))
    server.until(run, lambda p: p["current_node"] == "SandboxSlow")
    page = sandbox.output_dir / "slow_00001_.png"
    done = server.until_finished(run)
    good = page.read_bytes()
    page.write_bytes(b"302: Found")
    again = server.execute(sandbox.ssh_string, slow(4, steps=100))
    done = server.until_finished(again)
    assert (done["status"], done["error_code"]) == ("failed", "outputs_missing")
    assert "it begins with '302: Found'" in done["error_message"]
    page.write_bytes(good)
    assert server.post(f"/{again}/retry").status_code == 200
    assert server.until_finished(again)["status"] == "completed"


@pytest.mark.parametrize("with_graph", [True, False])
def test_runs_that_save_under_one_name_get_each_its_own_picture(
    server: ServerProcess, sandbox: SandboxProcess, with_graph: bool
) -> None:
    colors = [0x102030 + number for number in range(6)]
    runs = [server.execute(sandbox.ssh_string, saved_as(color, with_graph=with_graph)) for color in colors]
    done = [server.until_finished(run, 60) for run in runs]
    assert [each["status"] for each in done] == ["completed"] * 6, [each["error_message"] for each in done]
    assert [color_of(each) for each in done] == colors
    assert len(sandbox.executions()) == 6


def test_runs_that_number_their_files_keep_the_gpu_busy_beside_them(
    server: ServerProcess, sandbox: SandboxProcess
) -> None:
    """While the file of one is fetched, which takes for ever, only another of its kind waits."""
    sandbox.faults(storage={"silent": "reads"}, answers=[ENDLESSLY_BROKEN_VIEW])
    kept = server.execute(sandbox.ssh_string, saved_as(1))
    server.until(kept, lambda p: p["phase"] == "downloading")
    waits = server.execute(sandbox.ssh_string, saved_as(2))
    server.until(waits, lambda p: "until the files of another run" in (p["message"] or ""))
    numbered = server.execute(sandbox.ssh_string, painted(3))
    server.until(numbered, lambda p: p["phase"] == "downloading")
    assert len(sandbox.executions()) == 2
    sandbox.faults(storage={}, answers=[])
    assert server.until_finished(kept, 60)["status"] == "completed"
    assert [color_of(server.until_finished(run, 60)) for run in (waits, numbered)] == [2, 3]


ENDLESSLY_BROKEN_VIEW = {"path": "/view", "method": "GET", "mode": "drop", "times": 1_000_000}


@pytest.mark.parametrize("with_graph", [True, False])
def test_a_file_that_somebody_elses_prompt_has_overwritten_is_not_ours(
    server: ServerProcess, sandbox: SandboxProcess, with_graph: bool
) -> None:
    sandbox.faults(storage={"silent": "reads"}, answers=[ENDLESSLY_BROKEN_VIEW])
    ours = server.execute(sandbox.ssh_string, saved_as(1, with_graph=with_graph))
    server.until(ours, lambda p: p["phase"] == "downloading")
    theirs = {"prompt": saved_as(2, with_graph=with_graph)}
    answer = requests.post(f"{sandbox.comfyui_url}/prompt", json=theirs, timeout=10).json()
    until_over(sandbox, answer["prompt_id"])
    sandbox.faults(storage={}, answers=[])
    done = server.until_finished(ours, 60)
    assert (done["status"], done["error_code"], done["can_retry"]) == ("failed", "outputs_lost", False)
    assert "A retry cannot fetch them: execute the run again" in done["error_message"]
    assert "ComfyUI overwrote final.png before it could be fetched" in done["error_message"]
    assert not list(server.output_dir.iterdir())


def until_over(sandbox: SandboxProcess, prompt_id: str) -> None:
    deadline = time.monotonic() + 30
    while not requests.get(f"{sandbox.comfyui_url}/history/{prompt_id}", timeout=10).json():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_storage_that_stands_still_does_not_keep_a_run_from_its_cancel(
    server: ServerProcess, sandbox: SandboxProcess
) -> None:
    sandbox.faults(storage={"silent": "reads"}, answers=[ENDLESSLY_BROKEN_VIEW])
    run = server.execute(sandbox.ssh_string, painted(5))
    server.until(run, lambda p: p["phase"] == "downloading")
    began_s = time.monotonic()
    assert server.post(f"/{run}/cancel").status_code == 200
    done = server.until_finished(run)
    took_s = time.monotonic() - began_s
    assert done["status"] == "cancelled"
    assert "1 of 1 did not come" in done["error_message"]
    assert took_s < CANCELLED_WITHIN_S
    assert not list(server.output_dir.iterdir())


def test_a_storage_that_stands_still_is_gone_round(
    make_server: Callable[..., ServerProcess], sandbox: SandboxProcess
) -> None:
    """By the tunnel, once nothing has come for long enough."""
    server = make_server(ssh_silence_limit_s=3)
    sandbox.faults(storage={"silent": "reads"})
    done = server.until_finished(server.execute(sandbox.ssh_string, painted(6)), 90)
    assert (done["status"], done["error_message"]) == ("completed", None)
    assert color_of(done) == 6


def test_a_large_file_comes_over_a_link_that_breaks_again_and_again(
    server: ServerProcess, sandbox: SandboxProcess
) -> None:
    run = fattened(server, sandbox, 12_000_000)
    sandbox.faults(cut_ssh_after_bytes=5_000_000, step_delay_s=0.0)
    done = server.until_finished(run, 90)
    assert done["status"] == "completed", done["error_message"]
    assert (server.output_dir / LARGE).read_bytes() == (sandbox.output_dir / LARGE).read_bytes()
    assert not list(server.output_dir.glob(".*"))


def test_a_part_outlives_the_server(
    make_server: Callable[..., ServerProcess], sandbox: SandboxProcess
) -> None:
    server = make_server()
    run = fattened(server, sandbox, 12_000_000)
    sandbox.faults(cut_ssh_after_bytes=5_000_000)
    cutter = threading.Thread(target=until_part_is_here, args=(server, 2_000_000))
    cutter.start()
    sandbox.faults(step_delay_s=0.0)
    cutter.join()
    server.kill()
    part = max(server.output_dir.glob(".*.part"), key=lambda each: each.stat().st_size)
    inode, size_bytes = part.stat().st_ino, part.stat().st_size
    assert size_bytes >= 2_000_000
    sandbox.faults(cut_ssh_after_bytes=None)
    server.start()
    done = server.until_finished(run, 90)
    assert done["status"] == "completed", done["error_message"]
    settled = Path(next(o["local_path"] for o in done["outputs"] if o["filename"] == LARGE))
    assert settled.stat().st_ino == inode, "it is the part that was carried on"
    assert settled.read_bytes() == (sandbox.output_dir / LARGE).read_bytes()
    assert not list(server.output_dir.glob(".*"))


def test_an_upload_that_stands_still_does_not_keep_a_run_from_its_cancel(
    server: ServerProcess, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    Image.effect_noise((2000, 2000), 60).save(photo)
    sandbox.faults(storage={"silent": "reads"})
    run = server.execute(sandbox.ssh_string, loaded("photo.png"), input_images=[str(photo)])
    server.until(run, lambda p: p["phase"] == "uploading")
    began_s = time.monotonic()
    assert server.post(f"/{run}/cancel").status_code == 200
    assert server.until_finished(run)["status"] == "cancelled"
    assert time.monotonic() - began_s < CANCELLED_WITHIN_S


def test_an_upload_that_stands_still_goes_through_the_tunnel(
    make_server: Callable[..., ServerProcess], sandbox: SandboxProcess, tmp_path: Path
) -> None:
    server = make_server(ssh_silence_limit_s=3)
    photo = tmp_path / "photo.png"
    Image.new("RGB", (8, 8), "red").save(photo)
    sandbox.faults(storage={"silent": "reads"})
    run = server.execute(sandbox.ssh_string, loaded("photo.png"), input_images=[str(photo)])
    server.until(run, lambda p: p["phase"] in ("queued", "executing", "downloading", "finished"), 60)
    sandbox.faults(storage={})
    assert server.until_finished(run, 60)["status"] == "completed"


def test_nothing_is_left_of_a_file_whose_run_is_cancelled(
    server: ServerProcess, sandbox: SandboxProcess
) -> None:
    run = fattened(server, sandbox, 30_000_000)
    sandbox.faults(cut_ssh_after_bytes=3_000_000, step_delay_s=0.0)
    until_part_is_here(server, 1_000_000)
    assert server.post(f"/{run}/cancel").status_code == 200
    done = server.until_finished(run)
    assert done["status"] == "cancelled"
    assert not list(server.output_dir.glob(".*"))
