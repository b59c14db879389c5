"""Results in the shapes that nodes of many packs give them: fetched, or named in a notice."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.instance import Instance
from tests.integration.graphs import Graph, node, painted, slow
from tests.sandbox.running_comfyui import wait_until
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess

BLUE = 0x3366CC


def finished(server: ServerProcess, instance: Instance, graph: Graph, **fields: object) -> dict[str, Any]:
    done = server.until_finished(server.execute(instance.ssh_string, graph, **fields))
    assert done["status"] == "completed", done["error_message"]
    assert all(output["downloaded"] for output in done["outputs"])
    assert not list(server.output_dir.glob(".*")), "nothing hidden is left"
    return done


def picture_and(output_node: Graph, *, color: int = BLUE) -> Graph:
    """One picture that goes to this output node only."""
    return {"1": painted(color)["1"], "5": output_node}


def elsewhere(told: str, path: str) -> Graph:
    return picture_and(node("SandboxSaveElsewhere", image=["1", 0], path=path, told=told))


def color_of(path: str) -> tuple[int, ...]:
    pixel = Image.open(path).convert("RGB").getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return pixel


@pytest.mark.parametrize(
    "told",
    ["relative", "absolute subfolder", "absolute name", "windows", "dots", "text path", "paths",
     "name and subfolder", "nested", "one object", "no type"],
)  # fmt: skip
def test_a_file_below_the_output_directory_comes_however_it_is_told(
    server: ServerProcess, instance: Instance, told: str
) -> None:
    done = finished(server, instance, elsewhere(told, "video/day/a.png"))
    (output,) = done["outputs"]
    assert (output["filename"], output["subfolder"], output["node_id"]) == ("a.png", "video/day", "5")
    assert output["local_path"] == str(server.output_dir / "video" / "day" / "a.png")
    assert color_of(output["local_path"]) == (0x33, 0x66, 0xCC)
    assert done["notices"] == []


@pytest.mark.parametrize("told", ["relative", "absolute subfolder", "absolute name", "paths"])
def test_a_file_outside_of_comfyuis_directories_comes_too(
    server: ServerProcess, instance: Instance, told: str
) -> None:
    directory = instance.sandbox.output_dir.parents[1] / "elsewhere"
    done = finished(server, instance, elsewhere(told, str(directory / "a.png")))
    (output,) = done["outputs"]
    assert output["local_path"] == str(server.output_dir / "a.png")
    assert (output["folder"], output["remote_path"]) == (str(directory), str(directory / "a.png"))


def test_a_key_outside_of_comfyuis_directories_is_no_output(
    server: ServerProcess, instance: Instance
) -> None:
    hidden = instance.sandbox.output_dir.parents[1] / ".ssh" / "a.png"
    run = server.execute(instance.ssh_string, elsewhere("absolute name", str(hidden)))
    done = server.until_finished(run)
    assert (done["status"], done["error_code"], done["can_retry"]) == ("failed", "outputs_lost", False)
    assert (
        "of node 5 (SandboxSaveElsewhere): The instance gave it a name that is not safe"
        in done["error_message"]
    )
    assert "with another name in the node that saves" in done["error_message"]


@pytest.mark.parametrize("key", ["text", "tags", "string", "value", "result", "STRING", "texts", "anything"])
@pytest.mark.parametrize("is_list", [True, False])
def test_a_text_comes_under_any_key_and_as_one_text(
    server: ServerProcess, instance: Instance, key: str, is_list: bool
) -> None:
    graph = {"5": node("SandboxShow", text="a cat, v1.5\nof good quality", key=key, is_list=is_list)}
    done = finished(server, instance, graph)
    (output,) = done["outputs"]
    assert Path(output["local_path"]).read_text() == "a cat, v1.5\nof good quality"
    assert done["notices"] == []


def test_what_a_node_shows_to_its_widget_is_no_text(server: ServerProcess, instance: Instance) -> None:
    graph = {**painted(BLUE), "5": node("SandboxShow", text="0f3a", key="compositor_inputs", is_list=True)}
    done = finished(server, instance, graph)
    assert [output["node_id"] for output in done["outputs"]] == ["3"]
    assert done["notices"] == []


def test_a_text_that_names_an_older_file_is_a_text(server: ServerProcess, instance: Instance) -> None:
    old = instance.sandbox.output_dir / "old.png"
    Image.new("RGB", (2, 2)).save(old)
    os.utime(old, (1_000_000_000, 1_000_000_000))
    for text in ("old.png", "none.png", str(old)):
        done = finished(server, instance, {"5": node("SandboxShow", text=text, key="string", is_list=True)})
        (output,) = done["outputs"]
        assert Path(output["local_path"]).read_text() == text


@pytest.mark.parametrize("folder", ["output", "temp"])
def test_a_model_that_was_copied_with_its_time_is_a_result(
    server: ServerProcess, instance: Instance, folder: str
) -> None:
    graph = {"5": node("SandboxModel", model_file="old.glb", shown="new", folder=folder)}
    done = finished(server, instance, graph)
    (output,) = done["outputs"]
    assert (output["folder"], output["file_type"]) == (folder, "3d")
    assert Path(output["local_path"]).read_bytes().startswith(b"glTF")


def test_an_old_model_that_a_node_was_told_to_show_is_a_text(
    server: ServerProcess, instance: Instance
) -> None:
    graph = {"5": node("SandboxModel", model_file="old.glb", shown="given", folder="output")}
    (output,) = finished(server, instance, graph)["outputs"]
    assert Path(output["local_path"]).read_text() == "old.glb"


def test_pictures_that_come_over_the_websocket_are_outputs(server: ServerProcess, instance: Instance) -> None:
    graph = {"1": painted(BLUE, size=700, batch=3)["1"], "5": node("SaveImageWebsocket", images=["1", 0])}
    done = finished(server, instance, graph)
    assert [output["filename"] for output in done["outputs"]] == [
        "websocket_5_00001.png", "websocket_5_00002.png", "websocket_5_00003.png",
    ]  # fmt: skip
    for output in done["outputs"]:
        assert Image.open(output["local_path"]).size == (700, 700)
        assert color_of(output["local_path"]) == (0x33, 0x66, 0xCC)
    assert done["notices"] == []


def test_previews_of_other_nodes_are_no_outputs(server: ServerProcess, instance: Instance) -> None:
    graph = painted(BLUE)
    graph["2"] = node("SandboxSlow", image=["1", 0], steps=3, seconds_per_step=0.0, preview=True)
    graph["5"] = node("SaveImageWebsocket", images=["2", 0])
    done = finished(server, instance, graph)
    assert sorted(output["filename"] for output in done["outputs"]) == [
        "out_00001_.png",
        "websocket_5_00001.png",
    ]


def test_pictures_of_the_websocket_that_did_not_arrive_are_missed(
    server: ServerProcess, instance: Instance
) -> None:
    instance.sandbox.faults(deaf_websockets=True)
    done = finished(server, instance, picture_and(node("SaveImageWebsocket", images=["1", 0])))
    assert done["outputs"] == []
    (notice,) = done["notices"]
    assert notice.startswith("node 5 (SaveImageWebsocket) sends its pictures over the websocket only")
    assert "use SaveImage" in notice


def test_pictures_of_the_websocket_outlive_a_killed_server(
    make_server: Callable[..., ServerProcess], sandbox: SandboxProcess
) -> None:
    server = make_server()
    graph = slow(4, steps=600, seconds_per_step=0.05)
    graph["5"] = node("SaveImageWebsocket", images=["1", 0])
    run = server.execute(sandbox.ssh_string, graph)
    wait_until(lambda: any(server.output_dir.glob(".*.1.sent.part")), what="the picture is on disk")
    server.kill()
    server.start()
    sandbox.faults(step_delay_s=0.0)
    server.until(run, lambda p: p["status"] == "executing")
    requests.post(f"{sandbox.comfyui_url}/interrupt", json={}, timeout=10)
    done = server.until_finished(run, 60)
    assert [output["filename"] for output in done["outputs"]] == ["websocket_5_00001.png"]
    assert color_of(done["outputs"][0]["local_path"]) == (0, 0, 4)
    assert not list(server.output_dir.glob(".*"))


def test_a_connection_that_broke_may_have_lost_pictures(server: ServerProcess, instance: Instance) -> None:
    graph = slow(5, steps=20, seconds_per_step=0.1)
    graph["5"] = node("SaveImageWebsocket", images=["1", 0])
    run = server.execute(instance.ssh_string, graph)
    server.until(run, lambda p: p["current_node"] == "SandboxSlow")
    instance.cut()
    done = server.until_finished(run, 60)
    assert done["status"] == "completed", done["error_message"]
    assert any("the connection was interrupted" in notice for notice in done["notices"])
    assert "websocket_5_00001.png" in [output["filename"] for output in done["outputs"]]


def test_a_file_that_an_output_node_saved_without_a_word_is_found_by_its_prefix(
    server: ServerProcess, instance: Instance
) -> None:
    (instance.sandbox.output_dir / "mesh").mkdir()
    old = instance.sandbox.output_dir / "mesh" / "thing_0.glb"
    old.write_bytes(b"of an earlier prompt")
    os.utime(old, (1_000_000_000, 1_000_000_000))
    graph = {"5": node("SandboxExport", prefix="mesh/thing", suffix="_1.glb", folder="output")}
    done = finished(server, instance, graph)
    (output,) = done["outputs"]
    assert (output["subfolder"], output["filename"], output["file_type"]) == ("mesh", "thing_1.glb", "3d")
    assert done["notices"] == []


def test_an_output_node_of_which_nothing_comes_is_named(server: ServerProcess, instance: Instance) -> None:
    graph = {"5": node("SandboxExport", prefix="mesh/thing", suffix="_1.glb", folder="temp")}
    done = finished(server, instance, graph)
    assert done["outputs"] == []
    (notice,) = done["notices"]
    assert notice.startswith("node 5 (SandboxExport) told ComfyUI of no result")
    assert "connect a node that saves or shows it" in notice


def test_previews_alone_are_the_results(server: ServerProcess, instance: Instance) -> None:
    graph = picture_and(node("PreviewImage", images=["1", 0]))
    done = finished(server, instance, graph)
    assert [output["folder"] for output in done["outputs"]] == ["temp"]
    assert done["notices"] == ["The workflow saves no file, so its previews were fetched"]
    graph["6"] = node("SaveImage", images=["1", 0], filename_prefix="saved")
    done = finished(server, instance, graph)
    assert [output["folder"] for output in done["outputs"]] == ["output"]
    assert done["notices"] == []


def test_a_video_that_is_not_to_be_kept(server: ServerProcess, instance: Instance) -> None:
    graph = picture_and(node("SandboxCombine", image=["1", 0], save_output=False))
    done = finished(server, instance, graph)
    assert [output["folder"] for output in done["outputs"]] == ["temp"]
    graph["6"] = node("SaveImage", images=["1", 0], filename_prefix="saved")
    done = finished(server, instance, graph)
    assert [output["folder"] for output in done["outputs"]] == ["output"]
    (notice,) = done["notices"]
    assert notice.startswith("node 5 (SandboxCombine) keeps its file only until ComfyUI is started again")
    assert "set its save_output to true" in notice


@pytest.mark.parametrize("length", ["right", "zero", "sox", "half", "ffmpeg"])
def test_a_sound_that_was_written_as_a_stream_is_whole(
    server: ServerProcess, instance: Instance, length: str
) -> None:
    done = finished(server, instance, {"5": node("SandboxSound", length=length, name="sound.wav")})
    local = Path(done["outputs"][0]["local_path"])
    assert local.read_bytes() == (instance.sandbox.output_dir / "sound.wav").read_bytes()


def test_a_long_name_that_is_there_already_is_shortened(server: ServerProcess, instance: Instance) -> None:
    name = "é" * 125 + "x.png"
    assert len(name.encode()) == 255
    server.output_dir.mkdir()
    (server.output_dir / name).write_text("mine")
    done = finished(server, instance, elsewhere("relative", name))
    local = Path(done["outputs"][0]["local_path"])
    assert (local.suffix, local.name[:100], len(local.name.encode()) <= 255) == (".png", name[:100], True)
    assert local.name.endswith(" (1).png")
    assert (server.output_dir / name).read_text() == "mine"
