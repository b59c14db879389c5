"""Signatures: equal for graphs that should take about the same time."""

from typing import Any

import pytest

from comfyui_workflow.workflows.signature import is_changed_by, signature

GRAPH: dict[str, Any] = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "xl/sd xl.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "cat", "clip": ["1", 1]}},
    "3": {"class_type": "PrimitiveInt", "inputs": {"value": 7}},
    "4": {"class_type": "LoadImage", "inputs": {"image": "my cat.png"}},
    "5": {
        "class_type": "KSampler",
        "inputs": {
            "seed": ["3", 0],
            "steps": 20,
            "sampler_name": "euler",
            "tiled": False,
            "model": ["1", 0],
            "positive": ["2", 0],
        },
    },
    "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "a"}},
}


def changed(node_id: str, **inputs: object) -> dict[str, Any]:
    node = GRAPH[node_id]
    return {**GRAPH, node_id: {**node, "inputs": {**node["inputs"], **inputs}}}


SAME = {
    "another text": changed("2", text="a dog, running"),
    "another seed": changed("3", value=8),
    "another picture": changed("4", image="dog.JPG"),
    "a picture of a directory": changed("4", image="dog.webp [input]"),
    "another name for what comes out": changed("6", filename_prefix="b"),
    "a whole number written with a point": changed("5", steps=20.0),
    "another title": {**GRAPH, "5": {**GRAPH["5"], "_meta": {"title": "Second pass"}}},
    "another order": dict(reversed(GRAPH.items())),
}
OTHERS = {
    "another class": {**GRAPH, "6": {**GRAPH["6"], "class_type": "PreviewImage"}},
    "another link": changed("5", positive=["1", 1]),
    "another slot": changed("5", model=["1", 1]),
    "another number": changed("5", steps=21),
    "another switch": changed("5", tiled=True),
    "another sampler": changed("5", sampler_name="dpmpp_2m"),
    "another model": changed("1", ckpt_name="xl/other model.safetensors"),
    "one node more": {**GRAPH, "7": {"class_type": "X"}},
}


@pytest.mark.parametrize("graph", SAME.values(), ids=SAME)
def test_what_takes_as_long_has_the_same_signature(graph: dict[str, Any]) -> None:
    assert signature(graph) == signature(GRAPH)


@pytest.mark.parametrize("graph", OTHERS.values(), ids=OTHERS)
def test_what_takes_another_time_has_another(graph: dict[str, Any]) -> None:
    assert signature(graph) != signature(GRAPH)


def test_it_is_short_and_takes_whatever_a_graph_may_hold() -> None:
    odd = {"1": {"class_type": "\ud800", "inputs": {"a": [[1, {"b": None}]], "c": 10**400, "d": "x" * 10**6}}}
    assert len(signature(odd)) == 16
    assert signature({"1": {"class_type": "X", "inputs": None}}) == signature({"1": {"class_type": "X"}})


@pytest.mark.parametrize(
    ("inputs", "is_changed"),
    [
        ({}, False),
        ({"3.seed": 5, "6.text": "a.b", "Load Image.image": "b.png", "6.text_g": "cat"}, False),
        ({"KSampler.steps": 30}, True),
        ({"5.sampler_name": "euler"}, True),
        ({"5.model": ["1", 0]}, True),
        ({"5.tiled": True}, True),
    ],
)
def test_inputs_that_are_set_may_make_another(inputs: dict[str, Any], is_changed: bool) -> None:
    assert is_changed_by(inputs) is is_changed
