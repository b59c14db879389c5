"""A file's name is not its identity: another ComfyUI's directories, a cache whose files are gone, a history
that was cleared."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from PIL import Image

from tests.instance import Instance
from tests.integration.graphs import loaded, node, painted, slow
from tests.integration.test_exactly_once import runs_executed, wait_until
from tests.sandbox_process import SandboxProcess
from tests.server_process import Json, ServerProcess

MakeServer = Callable[..., ServerProcess]
UNTOLD = [
    {"path": path, "mode": "html", "times": 1000} for path in ("/internal/folder_paths", "/system_stats")
]


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Path]:
    """The directory of another ComfyUI on the same machine: its `input` and `output`."""
    for name in ("input", "output"):
        (tmp_path / "other" / name).mkdir(parents=True)
    yield tmp_path / "other"


def color_of(picture: str | Path) -> object:
    with Image.open(picture) as image:
        return image.getpixel((0, 0))


def picture(path: Path, color: str) -> Path:
    """Pictures of one colour: those of all colours have the same size."""
    Image.new("RGB", (8, 8), color).save(path)
    return path


@pytest.mark.parametrize("answers", [[], UNTOLD], ids=["directories are told", "directories are not told"])
def test_files_of_another_comfyui_are_neither_read_nor_fetched(
    server: ServerProcess, instance: Instance, other: Path, tmp_path: Path, answers: list[Json]
) -> None:
    """The configured directories are those of the other ComfyUI. Both have files of the same names and
    sizes, written in the same second."""
    sandbox = instance.sandbox
    sandbox.faults(answers=answers)
    ours = picture(tmp_path / "photo.png", "red")
    picture(sandbox.input_dir / "photo.png", "blue")
    picture(other / "output" / "loaded_00001_.png", "black")
    run = server.execute(
        instance.ssh_string,
        loaded("photo.png"),
        input_images=[str(ours)],
        comfyui_input_dir=str(other / "input"),
        comfyui_output_dir=str(other / "output"),
    )
    done = server.until_finished(run)
    assert done["status"] == "completed", done["error_message"]
    assert color_of(done["outputs"][0]["local_path"]) == (0, 255, 255)  # the opposite of red
    assert color_of(sandbox.input_dir / "photo.png") == (0, 0, 255)
    assert color_of(other / "output" / "loaded_00001_.png") == (0, 0, 0)


def test_a_directory_that_only_the_user_knows_is_used_if_it_is_the_right_one(
    server: ServerProcess, instance: Instance, tmp_path: Path
) -> None:
    sandbox = instance.sandbox
    sandbox.faults(answers=UNTOLD)
    run = server.execute(
        instance.ssh_string,
        loaded("photo.png"),
        input_images=[str(picture(tmp_path / "photo.png", "red"))],
        comfyui_input_dir=str(sandbox.input_dir),
        comfyui_output_dir=str(sandbox.output_dir),
    )
    done = server.until_finished(run)
    assert done["outputs"][0]["remote_path"] == str(sandbox.output_dir / "loaded_00001_.png")
    assert [each.name for each in sandbox.input_dir.iterdir()] == ["photo.png"]


def two_saves(color: int) -> Json:
    """The second picture is saved to a subfolder."""
    return painted(color) | {"4": node("SaveImage", images=["1", 0], filename_prefix="kept/raw")}


def test_cached_files_that_are_gone_are_saved_again(
    server: ServerProcess, instance: Instance, tmp_path: Path
) -> None:
    sandbox = instance.sandbox
    first = server.until_finished(server.execute(instance.ssh_string, two_saves(17)))
    (sandbox.output_dir / "out_00001_.png").unlink()
    server.output_dir = tmp_path / "elsewhere"
    second = server.execute(instance.ssh_string, two_saves(17))
    done = server.until_finished(second)
    assert done["status"] == "completed", done["error_message"]
    assert "their files are gone from the instance (out_00001_.png)" in done["notices"][0]
    assert "submitted once more" in done["notices"][0]
    assert done["submissions"] == 2
    by_node = {each["node_id"]: each["local_path"] for each in done["outputs"]}
    assert {name: color_of(path) for name, path in by_node.items()} == {
        each["node_id"]: color_of(each["local_path"]) for each in first["outputs"]
    }
    assert len(list(server.output_dir.rglob("*.png"))) == 2
    assert runs_executed(sandbox)[second] == 2


def test_cached_files_that_are_gone_again_end_the_run(
    make_server: MakeServer, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    """Nothing that this ComfyUI saves stays: the run ends, and a retry does not execute it."""
    server = make_server()
    server.until_finished(server.execute(sandbox.ssh_string, painted(18)))
    (sandbox.output_dir / "out_00001_.png").unlink()
    gone = {"filename": "elsewhere.png"}
    sandbox.faults(rename_outputs=dict.fromkeys(("out_00001_.png", "out_00002_.png"), gone))
    run = server.execute(sandbox.ssh_string, painted(18))
    done = server.until_finished(run)
    assert (done["status"], done["error_code"]) == ("failed", "outputs_missing")
    assert done["submissions"] == 2
    assert server.post(f"/{run}/retry").status_code == 200
    done = server.until(run, lambda p: p["status"] == "failed" and p["phase"] == "finished")
    assert done["submissions"] == 2


@pytest.mark.parametrize("age_s", [0, 100_000])
def test_the_picture_of_another_prompt_under_a_cached_name_is_not_taken(
    make_server: MakeServer, sandbox: SandboxProcess, tmp_path: Path, age_s: int
) -> None:
    """The directory was emptied, and its numbers were given again, lately or long ago."""
    server = make_server()
    server.until_finished(server.execute(sandbox.ssh_string, painted(19)))
    kept = (sandbox.output_dir / "out_00001_.png").read_bytes()
    (sandbox.output_dir / "out_00001_.png").unlink()
    server.until_finished(server.execute(sandbox.ssh_string, painted(0xFFFFFF)))
    theirs = (sandbox.output_dir / "out_00001_.png").read_bytes()
    (sandbox.output_dir / "out_00001_.png").unlink()
    server.until_finished(server.execute(sandbox.ssh_string, painted(19)))
    (sandbox.output_dir / "out_00001_.png").write_bytes(theirs)
    written_s = time.time() - age_s
    os.utime(sandbox.output_dir / "out_00001_.png", (written_s, written_s))
    server.output_dir = tmp_path / "elsewhere"
    done = server.until_finished(server.execute(sandbox.ssh_string, painted(19)))
    assert done["status"] == "completed", done["error_message"]
    assert color_of(done["outputs"][0]["local_path"]) != color_of(sandbox.output_dir / "out_00001_.png")
    assert kept != theirs


def in_history(sandbox: SandboxProcess) -> Json:
    found: Json = requests.get(f"{sandbox.comfyui_url}/history", timeout=10).json()
    return found


def clear_history(sandbox: SandboxProcess) -> None:
    requests.post(f"{sandbox.comfyui_url}/history", json={"clear": True}, timeout=10).raise_for_status()


@pytest.mark.parametrize("prefix", ["slow", "night/%year%/slow"])
def test_the_picture_of_a_prompt_that_the_history_lost_is_found(
    make_server: MakeServer, instance: Instance, prefix: str
) -> None:
    """Among pictures of others with the same prefix, from before and after."""
    server, sandbox = make_server(), instance.sandbox
    server.until_finished(server.execute(instance.ssh_string, slow(30, steps=1, prefix=prefix)))
    run = server.execute(instance.ssh_string, slow(31, steps=5, prefix=prefix))
    server.until_status(run, "executing")
    server.kill()
    wait_until(lambda: len(in_history(sandbox)) == 2)
    body = {"prompt": slow(32, steps=1, prefix=prefix)}
    requests.post(f"{sandbox.comfyui_url}/prompt", json=body, timeout=10).raise_for_status()
    wait_until(lambda: len(in_history(sandbox)) == 3)
    clear_history(sandbox)
    server.start()
    done = server.until_finished(run)
    assert done["status"] == "completed", done["error_message"]
    assert "no record of the prompt any more" in done["notices"][0]
    assert [output["filename"] for output in done["outputs"]] == ["slow_00002_.png"]
    assert runs_executed(sandbox)[run] == 1


def test_a_picture_is_found_after_a_restart_of_comfyui_too(
    make_server: MakeServer, sandbox: SandboxProcess
) -> None:
    server = make_server()
    run = server.execute(sandbox.ssh_string, slow(33, steps=5))
    server.until_status(run, "executing")
    server.kill()
    wait_until(lambda: len(in_history(sandbox)) == 1)
    sandbox.restart()
    server.start()
    done = server.until_finished(run)
    assert done["status"] == "completed", done["error_message"]
    assert len(sandbox.executions()) == 1


def test_of_two_pictures_of_two_inputs_each_run_finds_its_own(
    make_server: MakeServer, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    """Their graphs differ only in the name of the input, which even has one name in both requests."""
    server = make_server()
    sandbox.faults(hold=True)
    runs = {}
    for color in ("red", "lime"):
        (tmp_path / color).mkdir()
        photo = picture(tmp_path / color / "photo.png", color)
        runs[color] = server.execute(sandbox.ssh_string, loaded("photo.png"), input_images=[str(photo)])
        server.until(runs[color], lambda p: p["phase"] == "queued" and p["prompt_id"])
    server.kill()
    sandbox.faults(hold=False)
    wait_until(lambda: len(in_history(sandbox)) == 2)
    clear_history(sandbox)
    server.start()
    done = {color: server.until_finished(run) for color, run in runs.items()}
    assert [each["error_message"] for each in done.values()] == [None, None]
    found = {color: [color_of(o["local_path"]) for o in each["outputs"]] for color, each in done.items()}
    assert found == {"red": [(0, 255, 255)], "lime": [(255, 0, 255)]}


@pytest.mark.parametrize("when", ["executing", "queued"])
def test_a_prompt_without_record_and_without_file_may_have_run(
    make_server: MakeServer, sandbox: SandboxProcess, when: str
) -> None:
    server = make_server()
    sandbox.faults(hold=when == "queued")
    run = server.execute(sandbox.ssh_string, slow(34, steps=5))
    server.until(run, lambda p: p["status"] == "executing" or p["phase"] == when)
    server.kill()
    sandbox.faults(hold=False)
    wait_until(lambda: len(in_history(sandbox)) == 1)
    clear_history(sandbox)
    for file in sandbox.output_dir.glob("*.png"):
        file.unlink()
    server.start()
    done = server.until_finished(run)
    assert (done["status"], done["error_code"]) == ("failed", "prompt_lost")
    assert "It may have run" in done["error_message"]
    assert str(sandbox.output_dir) in done["error_message"]
    assert server.post(f"/{run}/retry").status_code == 409


def test_a_prompt_whose_answer_was_lost_is_not_sent_again_if_its_picture_is_there(
    make_server: MakeServer, sandbox: SandboxProcess
) -> None:
    """The server was killed before it knew that ComfyUI has the prompt, and the history was cleared."""
    server = make_server()
    sandbox.faults(answers=[{"path": "/prompt", "method": "POST", "mode": "drop"}], deaf_websockets=True)
    sandbox.faults(answers=[{"path": "/queue", "mode": "500", "times": 1000}])
    run = server.execute(sandbox.ssh_string, painted(35))
    wait_until(lambda: len(in_history(sandbox)) == 1)
    server.kill()
    sandbox.faults(answers=[], deaf_websockets=False)
    clear_history(sandbox)
    server.start()
    done = server.until_finished(run)
    assert done["status"] == "completed", done["error_message"]
    assert runs_executed(sandbox)[run] == 1


@pytest.mark.parametrize("names", [["slow_00001_.png"], ["slow_00001_.png", "slow_00002_.png"]])
def test_of_files_without_a_graph_inside_only_a_single_one_is_taken(
    make_server: MakeServer, sandbox: SandboxProcess, names: list[str]
) -> None:
    """Several are named."""
    server = make_server()
    run = server.execute(sandbox.ssh_string, slow(36, steps=5))
    server.until_status(run, "executing")
    server.kill()
    wait_until(lambda: len(in_history(sandbox)) == 1)
    clear_history(sandbox)
    for name in names:
        picture(sandbox.output_dir / name, "red")
    server.start()
    done = server.until_finished(run)
    if len(names) == 1:
        assert done["status"] == "completed", done["error_message"]
        assert [output["filename"] for output in done["outputs"]] == names
    else:
        assert (done["status"], done["error_code"]) == ("failed", "prompt_lost")
        assert f"may be its own: {', '.join(names)}" in done["error_message"]
