"""Graphs: validity, safety for ComfyUI, execution order."""

from collections.abc import Mapping
from typing import Any

import pytest

from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.runs.nodes import planned_nodes
from comfyui_workflow.workflows.graph import check_graph, output_ids, sink_ids, with_replaced_texts
from comfyui_workflow.workflows.node_definitions import Definitions


def node(kind: str, **inputs: object) -> dict[str, object]:
    return {"class_type": kind, "inputs": inputs}


GRAPH = {
    "save": node("SaveImage", images=["mix", 0]),
    "mix": node("ImageBlend", image1=["a", 0], image2=["b", 0]),
    "a": node("LoadImage", image="a.png"),
    "b": node("LoadImage", image="b.png"),
    "unused": node("LoadImage", image="c.png"),
}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "null"),
        ([1], "a list"),
        ("x", "a text"),
        (True, "true or false"),
        ({}, "no nodes"),
        ({"1": 5}, "node 1 is not an object"),
        ({"1": {"inputs": {}}}, 'node 1 has no "class_type"'),
        ({"1": {"class_type": "X", "inputs": []}}, '"inputs" is not an object'),
        ({"1": node("X", a=["9", 0])}, "links to node 9, which does not exist"),
        ({"1": node("X", hidden_extra=["gone", 0])}, 'input "hidden_extra" links to node gone'),
        ({"1": node("X", a=["2", 0]), "2": node("Y", b=["1", 0])}, "cycle"),
        ({"1": node("X", a=["1", 0])}, "cycle"),
    ],
)
def test_what_is_no_graph_is_refused_in_words(value: object, words: str) -> None:
    with pytest.raises(InvalidGraph, match=words):
        check_graph(value)


def test_values_that_only_look_like_links_are_values() -> None:
    graph = {"1": node("X", size=[512, 512], text="a", pair=["a", "b"], wrapped={"__value__": ["9", 0]})}
    assert check_graph(graph) is graph


def test_nodes_that_the_outputs_need_come_in_order() -> None:
    assert sink_ids(GRAPH) == ["save", "unused"]
    planned = [n.node_id for n in planned_nodes(GRAPH, ["save"])]
    assert planned == ["a", "b", "mix", "save"]
    assert [n.node_type for n in planned_nodes(GRAPH, ["save"])][-1] == "SaveImage"
    assert planned_nodes(GRAPH, ["missing"]) == ()


def test_output_nodes_are_known_by_their_definition() -> None:
    definitions = Definitions({"SaveImage": {"output_node": True}, "LoadImage": {"output_node": False}})
    assert output_ids(GRAPH, definitions) == ["save"]


def test_texts_are_replaced_at_any_depth_and_links_are_kept() -> None:
    several = {"__value__": ["a.png", ["b", 0], {"name": "a.png"}]}
    graph = {**GRAPH, "m": node("LoadImageMask", image="a.png", several=several)}

    def replace(of: Mapping[str, Any], name: str, text: str) -> str:
        return "a-1.png" if text == "a.png" and of["class_type"].startswith("LoadImage") and name else text

    changed = with_replaced_texts(graph, replace)
    assert changed["a"]["inputs"]["image"] == "a-1.png"
    assert changed["m"]["inputs"] == {
        "image": "a-1.png",
        "several": {"__value__": ["a-1.png", ["b", 0], {"name": "a-1.png"}]},
    }
    assert graph["a"]["inputs"]["image"] == "a.png"
    assert with_replaced_texts(graph, lambda _of, _name, text: text) is graph
