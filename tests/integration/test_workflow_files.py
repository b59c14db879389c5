"""The editor's own files, pictures with a workflow inside, inputs, seeds and the preflight: from start to
end."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.instance import Instance
from tests.integration.graphs import loaded, node, painted, slow
from tests.integration.test_fleet import until
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess

INNER = "11111111-2222-4333-8444-555555555555"


def drawn(node_id: int, kind: str, values: list[Any], *, image: int | None = None, out: list[int]) -> Any:
    """A node of the editor's file, with one input for an image or none."""
    inputs = [] if image is None else [{"name": image_name(kind), "type": "IMAGE", "link": image}]
    return {
        "id": node_id,
        "type": kind,
        "pos": [0, 0],
        "size": [200, 100],
        "flags": {},
        "mode": 0,
        "inputs": inputs,
        "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": out}],
        "properties": {},
        "widgets_values": values,
    }


def image_name(kind: str) -> str:
    return "images" if kind == "SaveImage" else "image"


def editor_file(color: int = 0x102030, *, prefix: str = "edited") -> dict[str, Any]:
    """An image of one colour, inverted inside a subgraph, through a reroute, and saved; a note beside it."""
    return {
        "version": 0.4,
        "last_node_id": 5,
        "last_link_id": 3,
        "nodes": [
            drawn(1, "EmptyImage", [32, 32, 1, color], out=[1]),
            drawn(2, INNER, [], image=1, out=[2]),
            {
                **drawn(3, "Reroute", [], out=[3]),
                "inputs": [{"name": "", "type": "*", "link": 2}],
            },
            drawn(4, "SaveImage", [prefix], image=3, out=[]),
            drawn(5, "Note", ["by hand"], out=[]),
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "*"], [3, 3, 0, 4, 0, "IMAGE"]],
        "groups": [],
        "extra": {},
        "definitions": {"subgraphs": [inverting_subgraph()]},
    }


def inverting_subgraph() -> dict[str, Any]:
    ends = [
        {"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": 7, "target_slot": 0, "type": "IMAGE"},
        {"id": 2, "origin_id": 7, "origin_slot": 0, "target_id": -20, "target_slot": 0, "type": "IMAGE"},
    ]
    return {
        "id": INNER,
        "version": 1,
        "name": "Inverting",
        "inputNode": {"id": -10, "bounding": [0, 0, 100, 100]},
        "outputNode": {"id": -20, "bounding": [500, 0, 100, 100]},
        "inputs": [{"id": f"{INNER[:-1]}6", "name": "image", "type": "IMAGE", "linkIds": [1]}],
        "outputs": [{"id": f"{INNER[:-1]}7", "name": "IMAGE", "type": "IMAGE", "linkIds": [2]}],
        "nodes": [drawn(7, "ImageInvert", [], image=1, out=[2])],
        "links": ends,
        "groups": [],
    }


def start(server: ServerProcess, instance: Instance, **fields: object) -> str:
    body = {"ssh_connection": instance.ssh_string, "output_dir": str(server.output_dir), **fields}
    answer = server.post("/execute", body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["workflow_id"])


def finish(server: ServerProcess, instance: Instance, **fields: object) -> dict[str, Any]:
    return server.until_finished(start(server, instance, **fields))


def picture(done: dict[str, Any]) -> Image.Image:
    assert (done["status"], done["error_message"]) == ("completed", None)
    return Image.open(done["outputs"][0]["local_path"])


def test_the_editors_file_runs_and_opens_there_again(
    server: ServerProcess, instance: Instance, tmp_path: Path
) -> None:
    workflow = editor_file()
    (tmp_path / "workflow.json").write_text(json.dumps(workflow))
    done = finish(server, instance, workflow_file=str(tmp_path / "workflow.json"))
    saved = picture(done)
    assert saved.getpixel((0, 0)) == (0xEF, 0xDF, 0xCF)
    assert [(n["node_id"], n["node_type"]) for n in done["nodes"]] == [
        ("1", "EmptyImage"),
        ("2:7", "ImageInvert"),
        ("4", "SaveImage"),
    ]
    assert json.loads(saved.info["workflow"]) == workflow


def test_a_picture_is_a_workflow(server: ServerProcess, instance: Instance) -> None:
    made = finish(server, instance, workflow=editor_file(0x405060))
    again = finish(server, instance, workflow_file=made["outputs"][0]["local_path"])
    assert picture(again).getpixel((0, 0)) == picture(made).getpixel((0, 0)) == (0xBF, 0xAF, 0x9F)
    assert json.loads(picture(again).info["workflow"]) == editor_file(0x405060)


def test_inputs_are_set_by_id_and_by_title(server: ServerProcess, instance: Instance) -> None:
    graph = painted(1)
    graph["1"]["_meta"] = {"title": "Canvas v1.0"}
    done = finish(server, instance, workflow=graph, inputs={"Canvas v1.0.color": 0x00FF00, "1.width": 48})
    assert picture(done).size == (48, 32)
    assert picture(done).getpixel((0, 0)) == (255, 0, 255)


def test_an_input_that_is_not_there_is_told_before_anything_is_sent(
    server: ServerProcess, instance: Instance
) -> None:
    done = finish(server, instance, workflow=painted(2), inputs={"1.colour": 3})
    assert (done["status"], done["error_code"]) == ("failed", "invalid_request")
    assert 'has no input "colour"; it has: width, height, batch_size, color' in done["error_message"]
    assert instance.sandbox.executions() == []


def test_a_drawn_seed_stays_the_same_over_a_killed_server(
    make_server: Callable[..., ServerProcess], instance: Instance
) -> None:
    server = make_server()
    run_id = start(
        server,
        instance,
        workflow=slow(steps=30),
        seed_mode="randomize",
        inputs={"3.filename_prefix": "seeds"},
    )
    server.until(run_id, lambda p: p["current_node"] == "SandboxSlow")
    graph_file = server.data_dir / "runs" / "live" / run_id / "graph.json"
    prepared = json.loads(graph_file.read_bytes())
    server.kill()
    server.start()
    done = server.until_finished(run_id)
    (execution,) = instance.sandbox.executions()
    assert (done["status"], done["submissions"], execution["prompt_id"]) == (
        "completed",
        1,
        done["prompt_id"],
    )
    kept = server.data_dir / "runs" / "finished" / run_id / "graph.json"
    assert json.loads(kept.read_bytes()) == prepared
    assert prepared["3"]["inputs"]["filename_prefix"] == "seeds"


def test_what_the_instance_lacks_is_said_before_anything_is_brought_there(
    server: ServerProcess, instance: Instance, tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "unique photo.png")
    graph = loaded("unique photo.png")
    graph["2"] = node("NoSuchNode", image=["1", 0])
    graph["4"] = node("EmptyImage", width=0, height=32, batch_size=1, color=0)
    graph["5"] = node("SaveImage", images=["4", 0], filename_prefix="x")
    done = finish(server, instance, workflow=graph, input_images=[str(tmp_path / "unique photo.png")])
    assert (done["status"], done["error_code"], done["failed_node_id"]) == ("failed", "invalid_workflow", "2")
    assert 'node 2 (NoSuchNode): this ComfyUI has no node class "NoSuchNode"' in done["error_message"]
    assert 'node 4 (EmptyImage): input "width" is 0, the least allowed is 1' in done["error_message"]
    assert instance.sandbox.executions() == []
    assert not (instance.sandbox.input_dir / "unique photo.png").exists()


def test_a_run_is_taken_up_again_when_the_instance_has_what_was_missing(
    server: ServerProcess, instance: Instance
) -> None:
    failed = finish(server, instance, workflow=loaded("later.png"))
    assert (failed["status"], failed["error_code"]) == ("failed", "invalid_workflow")
    Image.new("RGB", (24, 24)).save(instance.sandbox.input_dir / "later.png")
    assert server.post(f"/{failed['workflow_id']}/retry").status_code == 200
    assert picture(server.until_finished(failed["workflow_id"])).size == (24, 24)


def validate(server: ServerProcess, ssh_string: str, workflow: object, **fields: object) -> requests.Response:
    return server.post("/validate", {"ssh_connection": ssh_string, "workflow": workflow, **fields})


def test_validate_says_what_execute_would(server: ServerProcess, instance: Instance) -> None:
    good = validate(server, instance.ssh_string, editor_file()).json()
    assert (good["success"], good["valid"], good["errors"]) == (True, True, [])
    assert good["graph"]["4"]["inputs"] == {"filename_prefix": "edited", "images": ["2:7", 0]}
    graph = painted(3)
    graph["1"]["inputs"]["width"] = 0
    graph["1"]["_meta"] = {"title": "Canvas"}
    bad = validate(server, instance.ssh_string, graph, input_images=[]).json()
    assert (bad["success"], bad["valid"]) == (True, False)
    width = next(each for each in bad["key_inputs"] if each["name"] == "1.width")
    assert (width["kind"], width["value"], width["title"], width["minimum"]) == ("size", 0, "Canvas", 1)
    assert bad["errors"] == [
        {
            "severity": "error",
            "code": "value_smaller_than_min",
            "message": 'node 1 (EmptyImage "Canvas"): input "width" is 0, the least allowed is 1',
            "node_id": "1",
            "class_type": "EmptyImage",
            "title": "Canvas",
            "input": "width",
            "nearest": [],
        }
    ]
    assert instance.sandbox.executions() == []


def test_validate_of_an_instance_that_is_not_there_says_so(
    server: ServerProcess, sandbox: SandboxProcess
) -> None:
    nobody = re.sub(r"-p \d+", "-p 1", sandbox.ssh_string)
    answer = validate(server, nobody, painted())
    assert (answer.status_code, answer.json()["success"]) == (502, False)
    assert "Failed to create SSH tunnel" in answer.json()["message"]
    assert validate(server, sandbox.ssh_string, {"1": 5}).status_code == 400


@pytest.mark.parametrize("name", ["new.png", "sub/new.png"])
def test_a_file_that_came_after_the_definitions_is_found(
    server: ServerProcess, instance: Instance, name: str
) -> None:
    """`/object_info` is asked for once; what it lists may have grown since."""
    assert validate(server, instance.ssh_string, painted()).json()["valid"]
    missing = validate(server, instance.ssh_string, loaded(name)).json()
    assert (missing["valid"], [error["code"] for error in missing["errors"]]) == (
        False,
        ["input_file_missing"],
    )
    file = instance.sandbox.input_dir / name
    file.parent.mkdir(exist_ok=True)
    Image.new("RGB", (16, 16), "red").save(file)
    assert validate(server, instance.ssh_string, loaded(name)).json()["valid"]
    assert picture(finish(server, instance, workflow=loaded(name))).size == (16, 16)


def test_files_that_nobody_uses_are_told(server: ServerProcess, instance: Instance, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "spare.png")
    done = finish(server, instance, workflow=painted(7), input_images=[str(tmp_path / "spare.png")])
    assert done["status"] == "completed"
    assert done["notices"] == ['the file "spare.png" is sent with the request, but no node names it']


def test_what_was_prepared_is_what_is_submitted_however_often(
    make_server: Callable[..., ServerProcess], instance: Instance
) -> None:
    server = make_server(in_doubt_s=1)
    instance.sandbox.faults(answers=[{"path": "/prompt", "method": "POST", "mode": "500", "times": 2}])
    run_id = start(server, instance, workflow=editor_file(9), seed_mode="randomize")
    graph_file = server.data_dir / "runs" / "live" / run_id / "graph.json"
    server.until(run_id, lambda p: "trying again" in (p["message"] or ""))
    written = graph_file.stat().st_mtime_ns
    assert server.until_finished(run_id)["status"] == "completed"
    kept = server.data_dir / "runs" / "finished" / run_id / "graph.json"
    until(kept.exists)  # the record is moved after the end is told
    assert kept.stat().st_mtime_ns == written
