"""Nodes with habits of node packs: prompts that queue themselves again, names with placeholders, files that
are only shown, and nodes that need the file of the editor."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.instance import Instance
from tests.integration.graphs import Graph, node, painted
from tests.sandbox.running_comfyui import wait_until
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess

BLUE = 0x3366CC


def finished(server: ServerProcess, instance: Instance, graph: Graph, **fields: object) -> dict[str, Any]:
    done = server.until_finished(server.execute(instance.ssh_string, graph, **fields))
    assert done["status"] == "completed", done["error_message"]
    assert all(output["downloaded"] for output in done["outputs"])
    return done


def with_picture(output_node: Graph, *, color: int = BLUE) -> Graph:
    return {"1": painted(color)["1"], "5": output_node}


def meta_batch(rounds: int) -> Graph:
    return with_picture(node("SandboxMetaBatch", image=["1", 0], rounds=rounds, prefix="meta"))


def dated(directory: str, name: str) -> Graph:
    return with_picture(node("SandboxSaveDated", image=["1", 0], directory=directory, name=name))


def names(done: dict[str, Any]) -> list[str]:
    return [str(Path(output["subfolder"], output["filename"])) for output in done["outputs"]]


def test_a_prompt_that_queues_itself_again_is_followed_to_its_last_round(
    server: ServerProcess, instance: Instance
) -> None:
    done = finished(server, instance, meta_batch(4))
    (output,) = done["outputs"]
    assert output["filename"].startswith("meta_") and output["node_id"] == "5"
    (notice,) = done["notices"]
    assert "queued itself again" in notice and "4 prompts" in notice


def test_a_prompt_that_queues_itself_again_is_cancelled_in_whichever_round_it_is(
    server: ServerProcess, instance: Instance
) -> None:
    instance.sandbox.faults(step_delay_s=0.2)
    run = server.execute(instance.ssh_string, meta_batch(1000))
    wait_until(lambda: len(instance.sandbox.executions()) >= 3, what="the third round runs")
    server.post(f"/{run}/cancel").raise_for_status()
    assert server.until_finished(run)["status"] == "cancelled"
    queue = requests.get(f"{instance.sandbox.comfyui_url}/queue", timeout=10).json()
    assert queue == {"queue_running": [], "queue_pending": []}


def test_the_rounds_of_a_prompt_outlive_a_killed_server(
    make_server: Callable[..., ServerProcess], sandbox: SandboxProcess
) -> None:
    server = make_server()
    sandbox.faults(step_delay_s=0.3)
    run = server.execute(sandbox.ssh_string, meta_batch(6))
    wait_until(lambda: len(sandbox.executions()) >= 3, what="the third round runs")
    server.kill()
    server.start()
    done = server.until_finished(run, 60)
    assert done["status"] == "completed", done["error_message"]
    assert [output["filename"][:5] for output in done["outputs"]] == ["meta_"]


def test_a_prompt_that_fails_leaves_no_successor(server: ServerProcess, instance: Instance) -> None:
    instance.sandbox.faults(step_delay_s=0.1)
    graph = meta_batch(1000)
    graph["6"] = node("SandboxRaise", image=["1", 0], message="it broke")
    graph["7"] = node("SaveImage", images=["6", 0], filename_prefix="never")
    done = server.until_finished(server.execute(instance.ssh_string, graph))
    assert (done["status"], done["error_code"]) == ("failed", "prompt_failed")
    wait_until(
        lambda: not any(requests.get(f"{instance.sandbox.comfyui_url}/queue", timeout=10).json().values()),
        what="the successor is stopped",
    )
    assert len(instance.sandbox.executions()) <= 2


@pytest.mark.parametrize(
    ("directory", "name", "where"),
    [
        ("[time(%Y-%m-%d)]", "ComfyUI", "2026-11-30/ComfyUI_"),
        ("", "[time(%H%M%S)]", "2026-11-30_"),
        ("", "%time_%seed", "2026-11-30_2026-11-30_"),
        ("renders/%date", "a", "renders/2026-11-30/a_"),
        ("renders/day {date}/{hour}", "x/y", "renders/day 2026-11-30/2026-11-30/x/y_"),
    ],
)
def test_a_file_is_found_whose_name_has_placeholders(
    server: ServerProcess, instance: Instance, directory: str, name: str, where: str
) -> None:
    other = instance.sandbox.output_dir / "2026-11-30" / "ComfyUI_0.png"
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(b"of another day")
    os.utime(other, (1_000_000_000, 1_000_000_000))
    done = finished(server, instance, dated(directory, name))
    (found,) = names(done)
    assert found.startswith(where)
    assert done["notices"] == []


def test_a_directory_outside_of_comfyui_may_have_placeholders(
    server: ServerProcess, instance: Instance, tmp_path: Path
) -> None:
    directory = instance.sandbox.output_dir.parents[1] / tmp_path.name
    done = finished(server, instance, dated(f"{directory}/[time(%Y)]/day", "a"))
    (output,) = done["outputs"]
    assert output["folder"] == f"{directory}/2026-11-30/day"


def test_a_name_that_another_node_makes_is_found(server: ServerProcess, instance: Instance) -> None:
    graph = dated("", "")
    graph["6"] = node("StringConcatenate", string_a="made", string_b="up", delimiter="-")
    graph["5"]["inputs"]["name"] = ["6", 0]
    (found,) = names(finished(server, instance, graph))
    assert found.startswith("made-up_")


def test_a_file_of_the_prompt_before_is_not_taken(server: ServerProcess, instance: Instance) -> None:
    found = [names(finished(server, instance, dated("[time(%Y)]", "a"))) for _ in range(4)]
    assert [len(each) for each in found] == [1, 1, 1, 1]
    assert len({each[0] for each in found}) == 4


@pytest.mark.parametrize(
    "output_node",
    [
        node("SaveImage", images=["1", 0], filename_prefix="day\\pic"),
        node("SandboxSaveElsewhere", image=["1", 0], path="day\\pic_1.png", told="relative"),
        node("SandboxSaveElsewhere", image=["1", 0], path="x/day\\pic_1.png", told="absolute name"),
        node("SandboxSaveElsewhere", image=["1", 0], path="day\\x/pic_1.png", told="relative"),
    ],
)
def test_a_backslash_may_be_a_letter_of_a_name(
    server: ServerProcess, instance: Instance, output_node: Graph
) -> None:
    (instance.sandbox.output_dir / "day").mkdir(exist_ok=True)
    decoy = instance.sandbox.output_dir / "day" / "pic_1.png"
    decoy.write_bytes(b"the same name without a backslash")
    done = finished(server, instance, with_picture(output_node))
    (output,) = done["outputs"]
    local = Path(output["local_path"])
    assert "day" in local.parent.parts and "\\" not in str(local)
    assert local.read_bytes().startswith(b"\x89PNG")


def test_a_node_without_the_file_of_the_editor_is_told_as_that(
    server: ServerProcess, instance: Instance
) -> None:
    graph = {"5": node("SandboxReadEditorFile")}
    done = server.until_finished(server.execute(instance.ssh_string, graph))
    assert (done["status"], done["error_code"]) == ("failed", "prompt_failed")
    assert "'NoneType' object is not subscriptable" in done["error_message"]
    assert "give the workflow as the editor saves it (Save, not Export API)" in done["error_message"]
    editor_file = {"nodes": [{"id": 5, "type": "SandboxReadEditorFile"}], "links": []}
    body = {"prompt": graph, "extra_data": {"extra_pnginfo": {"workflow": editor_file}}}
    (output,) = finished(server, instance, body)["outputs"]
    assert Path(output["local_path"]).read_text() == "1"


def test_a_text_comes_whatever_the_id_of_its_node(server: ServerProcess, instance: Instance) -> None:
    ids = ["show/text", "show_text", "57:8", "x/../y", "a\\b", "é" * 150, "line\nbreak"]
    graph = {each: node("SandboxShow", text=f"of {each}", key="text", is_list=True) for each in ids}
    done = finished(server, instance, graph)
    assert {Path(output["local_path"]).read_text() for output in done["outputs"]} == {
        f"of {each}" for each in ids
    }


@pytest.mark.parametrize(
    ("name", "folder", "is_marked"),
    [("photo.png", "input", False), ("sub/photo.png", "input", True), ("earlier.png", "output", True)],
)
def test_a_file_that_a_node_has_loaded_and_shows_is_no_output(
    server: ServerProcess, instance: Instance, name: str, folder: str, is_marked: bool
) -> None:
    folders = {"input": instance.sandbox.layout.folders.input_dir, "output": instance.sandbox.output_dir}
    file = folders[folder] / name
    file.parent.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(file)
    os.utime(file, (1_000_000_000, 1_000_000_000))
    graph = painted(BLUE)
    graph["5"] = node("SandboxShowFile", name=name, folder=folder)
    if is_marked:
        graph["5"]["inputs"]["loaded"] = f"{name} [{folder}]"
    done = finished(server, instance, graph)
    assert names(done) == ["out_00001_.png"]
    assert done["notices"] == []


def test_a_file_that_a_node_saves_as_an_input_of_the_next_prompt_is_an_output(
    server: ServerProcess, instance: Instance
) -> None:
    root = os.path.relpath(instance.sandbox.layout.folders.input_dir, instance.sandbox.output_dir)
    graph = with_picture(
        node("SandboxSaveElsewhere", image=["1", 0], path=f"{root}/next.png", told="absolute name")
    )
    (output,) = finished(server, instance, graph)["outputs"]
    assert (output["folder"], output["filename"]) == ("input", "next.png")


@pytest.mark.parametrize("told", ["one object", "nothing"])
def test_a_file_is_found_whose_name_was_lost_on_the_way(
    server: ServerProcess, instance: Instance, told: str
) -> None:
    if told == "nothing":
        graph = dated("fixed/by the node", "")
    else:
        graph = with_picture(node("SandboxSaveElsewhere", image=["1", 0], path=["6", 0], told=told))
        graph["6"] = node("PrimitiveString", value="renders/a.png")
    (found,) = names(finished(server, instance, graph))
    assert found.startswith(("renders/", "fixed/by the node/"))


@pytest.mark.parametrize(("prefix", "extension"), [("a", ".txt"), ("set/b", ".md")])
def test_a_caption_beside_a_picture_comes_with_it(
    server: ServerProcess, instance: Instance, prefix: str, extension: str
) -> None:
    saver = node(
        "SandboxSaveCaption", image=["1", 0], prefix=prefix, caption="a blue wall", extension=extension
    )
    done = finished(server, instance, with_picture(saver))
    picture, caption = (Path(output["local_path"]) for output in done["outputs"])
    assert caption == picture.with_suffix(extension)
    assert caption.read_text() == "a blue wall"


def test_an_older_text_beside_a_picture_stays(server: ServerProcess, instance: Instance) -> None:
    path = "day/pic.png"
    (instance.sandbox.output_dir / "day").mkdir(exist_ok=True)
    old = instance.sandbox.output_dir / "day" / "pic.txt"
    old.write_text("of another picture")
    os.utime(old, (1_000_000_000, 1_000_000_000))
    saver = node("SandboxSaveElsewhere", image=["1", 0], path=path, told="relative", caption="a wall")
    assert names(finished(server, instance, with_picture(saver))) == [path]
