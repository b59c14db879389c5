"""Overrides of inputs in a request."""

from typing import Any

import pytest

from comfyui_workflow.errors import InvalidInputs, InvalidRequest
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.overrides import refuse_repeated, with_inputs
from tests.workflows.making import class_of

DEFINITIONS = Definitions({"Text": class_of({"text": ["STRING"], "a.b": ["INT"]}), "Plain": class_of()})


def one(kind: str, title: str | None = None, **inputs: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"class_type": kind, "inputs": inputs}
    return {**made, "_meta": {"title": title}} if title else made


GRAPH = {
    "6": one("Text", "Positive", text="old"),
    "7": one("Text", "v1.5 negative", text="old"),
    "8:2": one("Unknown", "Twin", any=1),
    "9": one("Unknown", "Twin"),
    "10": one("Sampler"),
    "11": {"class_type": "Plain"},
}


@pytest.mark.parametrize(
    ("name", "node_id", "input_name"),
    [
        ("6.text", "6", "text"),
        ("Positive.text", "6", "text"),
        ("v1.5 negative.text", "7", "text"),
        ("6.a.b", "6", "a.b"),
        ("v1.5 negative.a.b", "7", "a.b"),
        ("8:2.any", "8:2", "any"),
        ("Sampler.steps", "10", "steps"),
    ],
)
def test_an_input_is_named_by_node_and_input(name: str, node_id: str, input_name: str) -> None:
    changed = with_inputs(GRAPH, {name: "new"}, DEFINITIONS)
    assert changed[node_id]["inputs"][input_name] == "new"
    assert {k: v for k, v in changed.items() if k not in (node_id, "11")} == {
        k: v for k, v in GRAPH.items() if k not in (node_id, "11")
    }
    assert GRAPH["6"]["inputs"] == {"text": "old"}


def test_an_id_comes_before_a_title_and_a_title_before_a_class() -> None:
    graph = {"1": one("2", "3"), "2": one("X", "4"), "3": one("X", "5"), "4": one("X", "X")}
    set_at = {name: with_inputs(graph, {f"{name}.a": 1}, DEFINITIONS) for name in ("2", "3", "X")}
    assert {name: [k for k, v in found.items() if v["inputs"]] for name, found in set_at.items()} == {
        "2": ["2"], "3": ["3"], "X": ["4"]
    }  # fmt: skip


def test_the_longest_name_of_a_node_counts() -> None:
    graph = {"a": one("X"), "a.b": one("X")}
    assert with_inputs(graph, {"a.b.c": 1}, DEFINITIONS)["a.b"]["inputs"] == {"c": 1}


def test_a_list_is_a_value_and_no_link() -> None:
    changed = with_inputs(GRAPH, {"6.text": ["7", 0]}, DEFINITIONS)
    assert changed["6"]["inputs"]["text"] == {"__value__": ["7", 0]}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Twin.any", "any of the nodes 8:2, 9, all called"),
        ("Positve.text", "names no node; the nearest are Positive"),
        ("nothing like it.text", '"nothing like it.text" names no node$'),
        ("text", 'write "<node id or title>.<input>"'),
        ("6.", "names no node"),
        ("6.txt", r'node 6 \(Text\) has no input "txt"; it has: text, a.b'),
        ("11.x", 'has no input "x"; it has: none'),
    ],
)
def test_what_names_nothing_is_refused_in_words(name: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        with_inputs(GRAPH, {name: 1}, DEFINITIONS)


def test_an_input_that_is_named_twice_is_refused() -> None:
    refuse_repeated(GRAPH, ["6.text", "7.text", "Positive.a.b"])
    with pytest.raises(
        InvalidRequest, match=r'"6\.text" and "Positive\.text" are the same input: leave out one'
    ):
        refuse_repeated(GRAPH, ["6.text", "7.text", "Positive.text"])


def test_a_value_gets_the_type_of_its_input() -> None:
    changed = with_inputs(GRAPH, {"6.text": 1984, "6.a.b": "20"}, DEFINITIONS)
    assert changed["6"]["inputs"] == {"text": "1984", "a.b": 20}
    with pytest.raises(
        InvalidInputs, match=r'^inputs: node 6 \(Text\): input "a\.b" is 1\.5, it must'
    ) as refused:
        with_inputs(GRAPH, {"6.a.b": 1.5}, DEFINITIONS)
    assert refused.value.node_id == "6"
