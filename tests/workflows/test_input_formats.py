"""Reading of workflows in both formats."""

import json
from typing import Any

import pytest

from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.workflows.input_formats import read_workflow, read_workflow_file
from tests.workflows.making import file, node, socket
from tests.workflows.pictures import png, text

GRAPH = {"1": {"class_type": "X", "inputs": {"a": 1}}}
FILE = file(node(1, "A"), node(2, "B", inputs=[socket("x", 1)]), node(3, "Note"), links=[(1, 1, 0, 2, 0)])


def test_a_graph() -> None:
    given = read_workflow(GRAPH)
    assert given.graph is GRAPH
    assert given.editor_file is None


def test_an_editors_file_waits_for_an_instance() -> None:
    given = read_workflow(FILE)
    assert given.graph == {}
    assert given.editor_file is FILE


def test_an_editors_file_is_known_in_outline_without_an_instance() -> None:
    found = read_workflow(FILE).outline
    assert {key: (one["class_type"], one["inputs"]) for key, one in found.items()} == {
        "1": ("A", {}),
        "2": ("B", {"x": ["1", 0]}),
    }


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (file(), "no nodes that run"),
        (file(node(1, "Note")), "no nodes that run"),
        (file(node(1, "A", mode=2)), "no nodes that run"),
        (file(node(1, "A", [float("nan")])), "NaN"),
        (file(node(1, "A", ["\ud83d"])), "Unicode"),
        (file(node(1, "A", inputs=[socket("x", 7)]), links=[(7, 2, 0, 1, 0)]), "from node 2"),
        ({"nodes": {}}, "node nodes"),
        ([], "a list"),
    ],
)
def test_what_cannot_run_anywhere_is_refused_at_once(value: Any, words: str) -> None:
    with pytest.raises(InvalidGraph, match=words):
        read_workflow(value)


def test_a_file_on_disk_is_json_or_a_picture() -> None:
    assert read_workflow_file(json.dumps(GRAPH).encode()).graph == GRAPH
    assert read_workflow_file(json.dumps(FILE).encode()).editor_file == FILE
    with pytest.raises(ValueError):
        read_workflow_file(b"neither")


@pytest.mark.parametrize(
    ("prompt", "workflow", "graph", "editor_file"),
    [
        (GRAPH, FILE, GRAPH, FILE),
        (GRAPH, None, GRAPH, None),
        (GRAPH, {"no": "nodes"}, GRAPH, None),
        (GRAPH, file(node(1, "A", inputs=[socket("x", 7)]), links=[(7, 2, 0, 1, 0)]), GRAPH, None),
        (None, FILE, {}, FILE),
        (None, GRAPH, GRAPH, None),
    ],
)
def test_a_picture_brings_what_made_it(prompt: Any, workflow: Any, graph: Any, editor_file: Any) -> None:
    texts = [("prompt", prompt), ("workflow", workflow)]
    given = read_workflow_file(png(*(text(name, json.dumps(value)) for name, value in texts if value)))
    assert (given.graph, given.editor_file) == (graph, editor_file)


@pytest.mark.parametrize("is_changed", ["[NaN]", "NaN", '["a hash"]', "false"])
def test_what_comfyui_has_noted_in_the_nodes_is_left_out(is_changed: str) -> None:
    noted = json.dumps(GRAPH).replace('"class_type"', f'"is_changed": {is_changed}, "class_type"')
    assert read_workflow_file(png(text("prompt", noted))).graph == GRAPH
    assert read_workflow_file(noted.encode()).graph == GRAPH
    with pytest.raises(InvalidGraph, match="node 2 is not an object"):
        read_workflow_file((noted[:-1] + ', "2": 1}').encode())


def test_a_picture_with_a_broken_graph_is_refused() -> None:
    with pytest.raises(InvalidGraph, match="node 1 is not an object"):
        read_workflow_file(png(text("prompt", '{"1": 5}'), text("workflow", json.dumps(FILE))))
