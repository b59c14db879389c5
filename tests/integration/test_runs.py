"""Runs from start to end, through the public API, over the sandbox's SSH server and over OpenSSH."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.instance import Instance
from tests.integration.graphs import failing, loaded, node, painted, slow
from tests.sandbox.running_comfyui import wait_until
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess
from tests.sshd import Sshd


def names(progress: dict[str, Any]) -> list[str]:
    return [output["filename"] for output in progress["outputs"]]


def test_a_run_from_start_to_end(server: ServerProcess, instance: Instance) -> None:
    run_id = server.execute(instance.ssh_string, painted(0x102030))
    done = server.until_finished(run_id)
    assert (done["status"], done["error_message"]) == ("completed", None)
    assert (done["total_nodes"], done["completed_nodes"], done["progress_percent"]) == (3, 3, 100.0)
    assert [(n["node_type"], n["status"], n["progress"]) for n in done["nodes"]] == [
        ("EmptyImage", "executed", 100.0),
        ("ImageInvert", "executed", 100.0),
        ("SaveImage", "executed", 100.0),
    ]
    (output,) = done["outputs"]
    local = Path(output["local_path"])
    assert local.read_bytes() == (instance.sandbox.output_dir / output["filename"]).read_bytes()
    assert (local.parent, local.stat().st_size) == (server.output_dir, output["size_bytes"])
    assert Image.open(local).getpixel((0, 0)) == (0xEF, 0xDF, 0xCF)
    assert done["queue_time"] <= done["start_time"] <= done["end_time"]
    assert server.get("/state")["state"] == done
    wait_until(lambda: json.loads(server.state_file.read_text()) == done, what="the state file follows")
    assert server.get(f"/{run_id}/active")["active"] is False
    served = requests.get(f"{server.url}/{run_id}/outputs/0", timeout=10)
    assert served.content == local.read_bytes()
    (execution,) = instance.sandbox.executions()
    assert execution["prompt_id"] == done["prompt_id"]


def test_what_of_the_ssh_string_is_left_undone_is_said(server: ServerProcess, instance: Instance) -> None:
    ssh_string = f"{instance.ssh_string} -o StrictHostKeyChecking=no"
    done = server.until_finished(server.execute(ssh_string, painted(0x111111)))
    assert done["status"] == "completed"
    assert [notice for notice in done["notices"] if "StrictHostKeyChecking" in notice]


def test_runs_reach_comfyui_in_the_order_they_were_asked_for(
    server: ServerProcess, instance: Instance, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    Image.effect_noise((600, 600), 50).save(photo)
    graphs = [loaded(photo.name, prefix=f"{n}") if n % 3 == 0 else painted(n) for n in range(18)]
    asked = [server.execute(instance.ssh_string, graph, input_images=[str(photo)]) for graph in graphs]
    done = [server.until_finished(each) for each in asked]
    executed = [each["prompt_id"] for each in instance.sandbox.executions()]
    assert executed == [each["prompt_id"] for each in done]


def test_progress_goes_up_step_by_step(server: ServerProcess, instance: Instance) -> None:
    run_id = server.execute(instance.ssh_string, slow(2, steps=60, seconds_per_step=0.05))
    seen: list[dict[str, Any]] = []
    server.until(run_id, lambda p: seen.append(p) or p["status"] == "completed")
    percents = [p["progress_percent"] for p in seen]
    assert percents == sorted(percents)
    steps = [n["progress"] for p in seen for n in p["nodes"] if n["node_type"] == "SandboxSlow"]
    assert steps == sorted(steps)
    assert len(set(steps)) > 5
    running = [p for p in seen if p["status"] == "executing" and p["current_node"]]
    assert {p["current_node"] for p in running} >= {"SandboxSlow"}
    assert any(n["message"] and n["message"].startswith("Step ") for p in running for n in p["nodes"])
    assert all(p["queue_position"] is None for p in running)


def test_a_fully_cached_rerun_brings_the_same_file(server: ServerProcess, instance: Instance) -> None:
    first = server.until_finished(server.execute(instance.ssh_string, painted(7)))
    second = server.until_finished(server.execute(instance.ssh_string, painted(7)))
    assert second["status"] == "completed"
    assert {n["message"] for n in second["nodes"]} == {"Cached"}
    assert {n["status"] for n in second["nodes"]} == {"executed"}
    assert second["outputs"][0]["local_path"] == first["outputs"][0]["local_path"]
    assert len(list(server.output_dir.iterdir())) == 1


def test_two_inputs_of_one_name_in_two_runs(
    server: ServerProcess, instance: Instance, tmp_path: Path
) -> None:
    results = []
    for color in ("red", "blue"):
        (tmp_path / color).mkdir()
        Image.new("RGB", (8, 8), color).save(tmp_path / color / "photo 1.png")
        image = str(tmp_path / color / "photo 1.png")
        graph = loaded("photo 1.png", prefix=color)
        done = server.until_finished(server.execute(instance.ssh_string, graph, input_images=[image]))
        assert done["status"] == "completed", done["error_message"]
        results.append(Image.open(done["outputs"][0]["local_path"]).getpixel((0, 0)))
    assert results == [(0, 255, 255), (255, 255, 0)]
    assert Image.open(instance.sandbox.input_dir / "photo 1.png").getpixel((0, 0)) == (255, 0, 0)
    assert len(list(instance.sandbox.input_dir.glob("photo 1*.png"))) == 2


def test_an_input_that_is_there_already_is_not_sent_again(
    server: ServerProcess, instance: Instance, tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8), "green").save(tmp_path / "same.png")
    remote = instance.sandbox.input_dir / "same.png"
    written = []
    for prefix in ("a", "b"):
        graph = loaded("same.png", prefix=prefix)
        run = server.execute(instance.ssh_string, graph, input_images=[str(tmp_path / "same.png")])
        assert server.until_finished(run)["status"] == "completed"
        written.append((remote.stat().st_ino, remote.stat().st_mtime_ns))
    assert written[0] == written[1]
    assert [path.name for path in instance.sandbox.input_dir.iterdir()] == ["same.png"]


def test_a_batch_of_four_in_a_subfolder(server: ServerProcess, instance: Instance) -> None:
    graph = painted(9, batch=4, prefix="night/batch")
    done = server.until_finished(server.execute(instance.ssh_string, graph))
    assert names(done) == [f"batch_0000{n}_.png" for n in (1, 2, 3, 4)]
    for output in done["outputs"]:
        assert output["remote_path"] == f"/workspace/ComfyUI/output/night/{output['filename']}" or (
            output["remote_path"] == str(instance.sandbox.output_dir / "night" / output["filename"])
        )
        assert Path(output["local_path"]) == server.output_dir / "night" / output["filename"]
        assert Path(output["local_path"]).is_file()


def test_every_kind_of_output_comes_and_previews_only_when_asked(
    server: ServerProcess, instance: Instance
) -> None:
    graph = painted(11)
    graph["4"] = node("PreviewImage", images=["2", 0])
    graph["5"] = node("SandboxText", text="hello\nworld")
    for number, kind in enumerate(("gif", "video", "audio", "3d"), start=6):
        graph[str(number)] = node("SandboxFiles", kind=kind, filename_prefix=f"kind_{kind}")
    done = server.until_finished(server.execute(instance.ssh_string, graph))
    assert done["status"] == "completed", done["error_message"]
    kinds = sorted(output["file_type"] for output in done["outputs"])
    assert kinds == ["3d", "audio", "image", "image", "text", "video"]
    (text,) = [output for output in done["outputs"] if output["file_type"] == "text"]
    assert Path(text["local_path"]).read_text() == "hello\nworld"
    asked = server.until_finished(server.execute(instance.ssh_string, graph, include_previews=True))
    assert [o["folder"] for o in asked["outputs"]].count("temp") == 1
    assert all(o["downloaded"] for o in asked["outputs"])


def test_a_different_file_of_that_name_is_never_overwritten(
    server: ServerProcess, instance: Instance
) -> None:
    server.output_dir.mkdir()
    (server.output_dir / "out_00001_.png").write_text("mine")
    done = server.until_finished(server.execute(instance.ssh_string, painted(13)))
    assert done["outputs"][0]["local_path"] == str(server.output_dir / "out_00001_ (1).png")
    assert (server.output_dir / "out_00001_.png").read_text() == "mine"
    assert {path.name for path in server.output_dir.iterdir()} == {"out_00001_.png", "out_00001_ (1).png"}


def test_an_execution_error_names_node_and_reason_and_keeps_what_was_made(
    server: ServerProcess, instance: Instance
) -> None:
    graph = failing("the lens cap was on")
    graph["0"] = node("SaveImage", images=["1", 0], filename_prefix="before")
    done = server.until_finished(server.execute(instance.ssh_string, graph))
    assert (done["status"], done["failed_node"]) == ("failed", "SandboxRaise")
    assert done["error_message"] == "Node execution failed: the lens cap was on (node 2, SandboxRaise)"
    (failed,) = [n for n in done["nodes"] if n["status"] == "failed"]
    assert failed["node_id"] == "2"
    assert all(output["downloaded"] for output in done["outputs"])


def test_out_of_memory_is_called_so(server: ServerProcess, instance: Instance) -> None:
    instance.sandbox.faults(out_of_memory_class="ImageInvert")
    done = server.until_finished(server.execute(instance.ssh_string, painted(15)))
    assert done["error_message"] == "Node execution failed: Out of memory (node 2, ImageInvert)"


def test_a_refused_prompt_says_which_node_which_input_and_what_is_allowed(
    server: ServerProcess, instance: Instance
) -> None:
    graph = painted()
    graph["1"]["inputs"]["width"] = 0
    graph["3"]["inputs"].pop("filename_prefix")
    done = server.until_finished(server.execute(instance.ssh_string, graph))
    assert done["status"] == "failed"
    assert 'node 1 (EmptyImage): input "width" is 0, the least allowed is 1' in done["error_message"]
    assert 'node 3 (SaveImage): input "filename_prefix" is missing' in done["error_message"]
    assert instance.sandbox.executions() == []


def test_what_comfyui_leaves_out_is_said_and_does_not_count(
    server: ServerProcess, instance: Instance
) -> None:
    graph = painted(31)
    graph["4"] = node("ImageInvert", image=["1", 0])
    graph["5"] = node("SaveImage", images=["4", 0])
    done = server.until_finished(server.execute(instance.ssh_string, graph))
    assert done["status"] == "completed", done["error_message"]
    assert [n["node_id"] for n in done["nodes"]] == ["1", "2", "3"]
    (notice,) = done["notices"]
    assert 'node 5 (SaveImage): input "filename_prefix" is missing' in notice


def test_a_link_to_nowhere_is_never_sent(server: ServerProcess, instance: Instance) -> None:
    graph = painted()
    graph["3"]["inputs"]["not_in_the_schema"] = ["99", 0]
    body = {"ssh_connection": instance.ssh_string, "workflow": graph}
    answer = server.post("/execute", body)
    assert (answer.status_code, answer.json()["success"]) == (400, False)
    assert "links to node 99, which does not exist" in answer.json()["message"]
    assert server.until_finished(server.execute(instance.ssh_string, painted()))["status"] == "completed"


def test_wrong_directories_are_found_out(server: ServerProcess, instance: Instance, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "lost.png")
    run = server.execute(
        instance.ssh_string,
        loaded("lost.png"),
        input_images=[str(tmp_path / "lost.png")],
        comfyui_input_dir="/opt/nowhere/input",
        comfyui_output_dir="/opt/nowhere/output",
    )
    done = server.until_finished(run)
    assert done["status"] == "completed", done["error_message"]
    assert Path(done["outputs"][0]["local_path"]).is_file()
    assert done["outputs"][0]["remote_path"] == str(instance.sandbox.output_dir / "loaded_00001_.png")


def test_a_machine_without_sftp_sends_its_files_through_the_tunnel(
    server: ServerProcess, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "photo.png")
    with Sshd(tmp_path / "sshd") as sshd:
        sshd.stop()
        sshd.add_config("ForceCommand /bin/false")
        sshd.start()
        ssh_string = sshd.ssh_string(comfyui_port=sandbox.comfyui_port)
        graph = loaded("photo.png", prefix="deep/tunnel")
        done = server.until_finished(
            server.execute(ssh_string, graph, input_images=[str(tmp_path / "photo.png")])
        )
    assert done["status"] == "completed", done["error_message"]
    local = Path(done["outputs"][0]["local_path"])
    assert local == server.output_dir / "deep" / "tunnel_00001_.png"
    assert local.read_bytes() == (sandbox.output_dir / "deep" / "tunnel_00001_.png").read_bytes()


def test_an_output_moved_away_there_fails_the_run_and_a_retry_fetches_it(
    server: ServerProcess, instance: Instance
) -> None:
    remote = instance.sandbox.output_dir / "moved.png"
    instance.sandbox.faults(rename_outputs={"out_00001_.png": {"filename": "moved.png"}})
    run = server.execute(instance.ssh_string, painted(17))
    done = server.until_finished(run)
    assert (done["status"], done["error_code"]) == ("failed", "outputs_missing")
    assert "moved.png" in done["error_message"]
    assert done["outputs"][0]["downloaded"] is False
    content = (instance.sandbox.output_dir / "out_00001_.png").read_bytes()
    remote.write_bytes(content)
    assert server.post(f"/{run}/retry").status_code == 200
    done = server.until_finished(run)
    assert (done["status"], done["error_message"]) == ("completed", None)
    assert Path(done["outputs"][0]["local_path"]).read_bytes() == content
    assert len(instance.sandbox.executions()) == 1


def test_cancel_while_queued_takes_that_prompt_and_no_other(
    server: ServerProcess, instance: Instance
) -> None:
    instance.sandbox.faults(hold=True)
    ids = []
    for color in (20, 21, 22):
        ids.append(server.execute(instance.ssh_string, painted(color)))
        server.until(ids[-1], lambda p: p["queue_position"] is not None)
    server.until(ids[1], lambda p: p["phase"] == "queued" and p["queue_position"] is not None)
    positions = [server.progress(run_id)["queue_position"] for run_id in ids]
    assert positions == [0, 1, 2]
    assert server.post(f"/{ids[1]}/cancel").json()["success"] is True
    assert server.until_finished(ids[1])["status"] == "cancelled"
    server.until(ids[2], lambda p: p["queue_position"] == 1)
    instance.sandbox.faults(hold=False)
    assert [server.until_finished(ids[n])["status"] for n in (0, 2)] == ["completed", "completed"]
    executed = [execution["prompt_id"] for execution in instance.sandbox.executions()]
    assert executed == [server.progress(ids[n])["prompt_id"] for n in (0, 2)]


def test_a_queued_prompt_that_is_cancelled_does_not_begin_when_the_one_before_it_is(
    server: ServerProcess, instance: Instance
) -> None:
    running = server.execute(instance.ssh_string, slow(27, steps=600, seconds_per_step=1))
    queued = server.execute(instance.ssh_string, slow(28, steps=600))
    server.until(queued, lambda p: p["phase"] == "queued")
    until_a_step_begins(server, running)
    for each in (queued, running):
        assert server.post(f"/{each}/cancel").status_code == 200
    assert [server.until_finished(each)["status"] for each in (queued, running)] == ["cancelled"] * 2
    assert len(instance.sandbox.executions()) == 1


def test_a_prompt_that_is_cancelled_while_it_is_submitted_does_not_begin(
    server: ServerProcess, instance: Instance
) -> None:
    running = server.execute(instance.ssh_string, slow(29, steps=600, seconds_per_step=1))
    until_a_step_begins(server, running)
    for color in range(30, 36):
        cancelled = server.execute(instance.ssh_string, painted(color))
        assert server.post(f"/{cancelled}/cancel").status_code == 200
    assert server.post(f"/{running}/cancel").status_code == 200
    assert server.until_finished(running)["status"] == "cancelled"
    assert server.until_finished(cancelled)["status"] == "cancelled"
    assert len(instance.sandbox.executions()) == 1


def until_a_step_begins(server: ServerProcess, run: str) -> None:
    """An interrupt is heeded at its end."""
    server.until(run, lambda p: p["current_node"] == "SandboxSlow")
    steps = server.progress(run)["nodes"]
    server.until(run, lambda p: p["nodes"] != steps)


def test_cancel_while_running_interrupts_that_prompt(server: ServerProcess, instance: Instance) -> None:
    first = server.execute(instance.ssh_string, slow(23, steps=200))
    server.until(first, lambda p: p["current_node"] == "SandboxSlow")
    second = server.execute(instance.ssh_string, painted(24))
    assert server.post(f"/{first}/cancel").status_code == 200
    done = server.until_finished(first)
    assert (done["status"], done["error_message"]) == ("cancelled", None)
    assert not [n for n in done["nodes"] if n["status"] == "executing"]
    assert server.until_finished(second)["status"] == "completed"
    assert server.post(f"/{first}/cancel").status_code == 404


@pytest.mark.parametrize("version", ["0.33.0", "0.8.0", "0.3.64", "0.3.41"])
def test_an_old_comfyui_that_chooses_its_own_ids(
    server: ServerProcess, instance: Instance, version: str
) -> None:
    instance.sandbox.faults(version=version)
    done = server.until_finished(server.execute(instance.ssh_string, slow(25, steps=5)))
    assert (done["status"], done["completed_nodes"]) == ("completed", 3)
    (execution,) = instance.sandbox.executions()
    assert execution["prompt_id"] == done["prompt_id"]


def test_what_runs_on_the_instance_beside_us_is_left_alone(server: ServerProcess, instance: Instance) -> None:
    url = instance.sandbox.comfyui_url
    foreign = requests.post(f"{url}/prompt", json={"prompt": slow(26, steps=15)}, timeout=10).json()
    ours = server.execute(instance.ssh_string, painted(27))
    server.until(ours, lambda p: p["queue_position"] == 1 or p["status"] != "queued")
    assert server.until_finished(ours)["status"] == "completed"
    entry = requests.get(f"{url}/history/{foreign['prompt_id']}", timeout=10).json()
    assert entry[foreign["prompt_id"]]["status"]["status_str"] == "success"


def test_somebody_elses_hand_on_our_prompt_is_reported(
    make_server: Callable[..., ServerProcess], instance: Instance
) -> None:
    server = make_server()
    instance.sandbox.faults(hold=True)
    run = server.execute(instance.ssh_string, painted(28))
    prompt_id = server.until(run, lambda p: p["phase"] == "queued")["prompt_id"]
    requests.post(f"{instance.sandbox.comfyui_url}/queue", json={"delete": [prompt_id]}, timeout=10)
    done = server.until_finished(run)
    assert done["status"] == "cancelled"
    assert done["error_message"] == "The prompt was removed on the instance, not by this server"
