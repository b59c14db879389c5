"""Selection and description of the inputs that a person is likely to change."""

import json
from typing import Any

import pytest

from comfyui_workflow.workflows.editable_inputs import key_inputs
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.input_formats import read_workflow
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.overrides import with_inputs
from tests.workflows.making import class_of, file, node, socket, subgraph
from tests.workflows.test_pairs import DEFINITIONS, NAMES, PAIRS

NOTHING = Definitions({})
GRAPH = {
    "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "prompt.png"}},
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png [input]"}},
    "3": {
        "class_type": "KSampler",
        "inputs": {"seed": 7, "steps": 20, "cfg": 7.5, "sampler_name": "euler", "denoise": ["5", 0],
                   "negative": ["7", 0], "positive": ["8", 0]},
    },
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry"}, "_meta": {"title": "<b>No</b>"}},
    "8": {"class_type": "Combine", "inputs": {"a": ["6", 0]}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lake"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": ["3", 0], "batch_size": True}},
}  # fmt: skip


def outline(given: Any) -> Graph:
    return read_workflow(given).outline


def told(graph: Any, definitions: Definitions = NOTHING) -> dict[str, str]:
    return {each.name: each.kind.value for each in key_inputs(graph, definitions)}


def test_texts_come_first_and_files_last_and_links_not_at_all() -> None:
    assert list(told(GRAPH).items()) == [
        ("6.text", "text"),
        ("7.text", "text"),
        ("3.seed", "seed"),
        ("5.width", "size"),
        ("3.steps", "steps"),
        ("3.cfg", "number"),
        ("3.sampler_name", "choice"),
        ("1.image", "file"),
    ]


def test_each_says_what_it_is() -> None:
    positive, negative, *_, picture = (each.document() for each in key_inputs(GRAPH, NOTHING))
    assert (positive["role"], negative["role"]) == ("positive", "negative")
    assert negative == {
        "name": "7.text",
        "node_id": "7",
        "class_type": "CLIPTextEncode",
        "title": "<b>No</b>",
        "input": "text",
        "kind": "text",
        "value": "blurry",
        "role": "negative",
    }
    assert (picture["media"], picture["title"], picture["value"]) == ("image", "LoadImage", "a.png [input]")


def test_the_definitions_of_an_instance_say_more() -> None:
    classes = Definitions(
        {
            "X": class_of(
                {
                    "noise": ["INT", {"control_after_generate": True, "min": 1, "max": 9, "step": 2}],
                    "seed": ["INT", {"control_after_generate": False}],
                    "wish": ["STRING", {"multiline": True}],
                    "text": [["a", "b"]],
                    "style": [["s", 1, {"no": "choice"}, float("nan")]],
                    "clip": [["a.mp4"], {"video_upload": True}],
                    "cfg": ["FLOAT", {"min": "much", "max": float("inf"), "step": 0.5}],
                },
                display_name="An X",
            )
        }
    )
    values = {"noise": 5, "seed": 1, "wish": "w", "text": "a", "style": "s", "clip": "x", "cfg": 1.0}
    graph = {"1": {"class_type": "X", "inputs": values}}
    found = {each.input: each.document() for each in key_inputs(graph, classes)}
    assert {name: each["kind"] for name, each in found.items()} == {
        "wish": "text",
        "noise": "seed",
        "cfg": "number",
        "style": "choice",
        "clip": "file",
    }
    bounds = [found["noise"].get(bound) for bound in ("minimum", "maximum", "step")]
    assert (bounds, found["noise"]["title"]) == ([1, 9, 2], "An X")
    assert (found["style"]["options"], found["clip"]["media"]) == (["s", 1], "video")
    assert "minimum" not in found["cfg"]
    assert "maximum" not in found["cfg"]
    assert found["cfg"]["step"] == 0.5


def test_a_text_that_leads_to_both_is_positive_and_nodes_that_take_both_keep_them_apart() -> None:
    graph = {
        "1": {"class_type": "S", "inputs": {"positive": ["2", 0], "negative": ["2", 1]}},
        "2": {"class_type": "Control", "inputs": {"positive": ["3", 0], "negative": ["4", 0]}},
        "3": {"class_type": "T", "inputs": {"text": "yes"}},
        "4": {"class_type": "Zero", "inputs": {"in": ["3", 0], "other": ["5", 0]}},
        "5": {"class_type": "T", "inputs": {"text": "no"}},
        "6": {"class_type": "T", "inputs": {"text": "nothing to do with it"}},
    }
    roles = {each.node_id: each.role for each in key_inputs(graph, NOTHING)}
    assert list(roles.items()) == [("3", "positive"), ("6", None), ("5", "negative")]


@pytest.mark.parametrize(
    "value",
    [None, True, [], ["1", 0], {"__value__": ["a"]}, {}],
)
def test_what_nobody_types_is_none(value: object) -> None:
    graph = {"1": {"class_type": "T", "inputs": {"text": value, "seed": value, "width": value}}}
    assert told(graph) == {}


def test_a_name_that_would_lead_elsewhere_is_left_out() -> None:
    graph = {
        "6": {"class_type": "T", "inputs": {"a.text": "x", "b.text": "y", "": "z"}},
        "7": {"class_type": "T", "inputs": {}, "_meta": {"title": "6.a"}},
        "8": {"class_type": "T"},
    }
    assert told(graph) == {"6.b.text": "text"}
    for each in key_inputs(graph, NOTHING):
        changed = with_inputs(graph, {each.name: "new"}, NOTHING)
        assert changed[each.node_id]["inputs"][each.input] == "new"


@pytest.mark.parametrize("name", NAMES)
def test_every_name_sets_that_input_and_no_other(name: str) -> None:
    graph = json.loads((PAIRS / f"{name}.api.json").read_bytes())
    for each in key_inputs(graph, DEFINITIONS):
        assert graph[each.node_id]["inputs"][each.input] == each.value
        changed = with_inputs(graph, {each.name: each.value}, DEFINITIONS)
        assert changed[each.node_id]["inputs"][each.input] == each.value


@pytest.mark.parametrize("name", NAMES)
def test_what_a_file_is_known_to_say_without_an_instance_is_true(name: str) -> None:
    known = outline(json.loads((PAIRS / f"{name}.ui.json").read_bytes()))
    graph = json.loads((PAIRS / f"{name}.api.json").read_bytes())
    if name == "t_old_seed_control_bool_new":  # the editor itself assigns these values to other widgets
        return
    for each in key_inputs(known, NOTHING):
        assert graph[each.node_id]["inputs"][each.input] == each.value, each.name


def test_most_of_what_the_usual_files_say_is_known_without_an_instance() -> None:
    name = "sdxl_simple_example"
    known = outline(json.loads((PAIRS / f"{name}.ui.json").read_bytes()))
    kinds = list(told(known).values())
    assert {"text", "seed", "steps", "size", "choice"} <= set(kinds)


def test_of_a_class_nobody_knows_the_file_must_name_every_widget() -> None:
    widgets = [socket("text", None, "STRING", widget=True), socket("seed", None, "INT", widget=True)]
    whole = node(1, "Unknown", ["a", 5, "randomize"], inputs=widgets)
    assert told(outline(file(whole))) == {"1.text": "text", "1.seed": "seed"}
    for values in (["a"], ["a", 5, "x"], ["a", 5, 6, "randomize"], [5, "a"], [5, "randomize", "a"]):
        assert told(outline(file({**whole, "widgets_values": values}))) == {}, values
    by_name = node(1, "Unknown", {"text": "a", "seed": 5})
    assert told(outline(file(by_name))) == {"1.text": "text", "1.seed": "seed"}


def test_without_definitions_a_primitive_gives_its_value_and_a_wall_none() -> None:
    primitive = node(2, "PrimitiveNode", [8, "fixed"], outputs=[{"type": "INT"}])
    target = [socket("noise_seed", 1, "INT", widget=True)]
    sampler = node(3, "RandomNoise", [5, "fixed"], inputs=target)
    known = outline(file(primitive, sampler, links=[(1, 2, 0, 3, 0)]))
    assert [(each.name, each.value) for each in key_inputs(known, NOTHING)] == [("3.noise_seed", 8)]
    inner = node(5, "CLIPTextEncode", ["inside"], inputs=[socket("text", 9, "STRING", widget=True)])
    wall = subgraph("sub", inner, links=[(9, -10, 0, 5, 0)], inputs=[("text", "STRING", 9)], outputs=[])
    outside = file(node(4, "sub", ["outside"]), definitions={"subgraphs": [wall]})
    assert told(outline(outside)) == {}


def test_a_seed_that_a_browser_would_round_is_a_text() -> None:
    def told(seed: int) -> object:
        graph = {"3": {"class_type": "KSampler", "inputs": {"seed": seed}}}
        return key_inputs(graph, NOTHING)[0].document()["value"]

    assert (told(2**53 - 1), told(2**53), told(2**64 - 1)) == (2**53 - 1, str(2**53), str(2**64 - 1))
