"""Set/Get nodes: the input of a SetNode is the output of every GetNode with its name."""

from typing import Any

import pytest

from comfyui_workflow.errors import InvalidGraph
from tests.workflows.making import (
    Json,
    class_of,
    file,
    graph_of,
    inputs_of,
    node,
    socket,
    subgraph,
)

CLASSES = {
    "Make": class_of({"w": ["INT", {"default": 64}]}, output=["IMAGE"]),
    "Show": class_of({"images": ["IMAGE"]}),
}


def setter(name: str = "canvas", *, link: int | None = 1, **other: Any) -> Json:
    return node(2, "SetNode", [name], inputs=[socket("IMAGE", link)], **other)


def getter(name: str = "canvas", **other: Any) -> Json:
    return node(3, "GetNode", [name], **other)


def show(link: int) -> Json:
    return node(9, "Show", inputs=[socket("images", link, "IMAGE")])


def drawn(*nodes: Json) -> Json:
    """Returns a file with the links Make to SetNode, and GetNode to Show."""
    return file(node(1, "Make"), *nodes, show(2), links=[(1, 1, 0, 2, 0), (2, 3, 0, 9, 0)])


def test_what_is_set_is_got_and_neither_node_runs() -> None:
    graph = graph_of(drawn(setter(), getter()), CLASSES)
    assert list(graph) == ["1", "9"]
    assert graph["9"]["inputs"] == {"images": ["1", 0]}


def test_the_name_tells_which() -> None:
    other = node(4, "SetNode", ["other"], inputs=[socket("IMAGE", None)])
    assert inputs_of(drawn(other, setter(), getter()), CLASSES)["9"] == {"images": ["1", 0]}


def test_a_setter_hands_on_to_its_own_output_too() -> None:
    workflow = file(node(1, "Make"), setter(), show(2), links=[(1, 1, 0, 2, 0), (2, 2, 0, 9, 0)])
    assert inputs_of(workflow, CLASSES)["9"] == {"images": ["1", 0]}


def test_a_subgraph_gets_what_is_set_around_it() -> None:
    inner = subgraph(
        "inner",
        getter(),
        node(5, "Show", inputs=[socket("images", 7, "IMAGE")]),
        links=[(7, 3, 0, 5, 0)],
    )
    workflow = file(
        node(1, "Make"),
        setter(),
        node(4, "inner"),
        links=[(1, 1, 0, 2, 0)],
        definitions={"subgraphs": [inner]},
    )
    assert inputs_of(workflow, CLASSES)["4:5"] == {"images": ["1", 0]}


@pytest.mark.parametrize("values", [["another"], [], [None], {"name": "canvas"}])
def test_what_nobody_sets_is_an_error_that_names_the_node(values: Any) -> None:
    with pytest.raises(InvalidGraph, match=r"node 3 \(GetNode\): the workflow has no SetNode with"):
        graph_of(drawn(setter(), node(3, "GetNode", values)), CLASSES)


def test_a_setter_that_gets_itself_is_a_circle() -> None:
    workflow = file(setter(link=5), getter(), show(2), links=[(5, 3, 0, 2, 0), (2, 3, 0, 9, 0)])
    with pytest.raises(InvalidGraph, match="linked in a circle"):
        graph_of(workflow, CLASSES)


def test_a_setter_without_a_source_gives_nothing() -> None:
    assert inputs_of(drawn(setter(link=None), getter()), CLASSES)["9"] == {}


@pytest.mark.parametrize("mode", [2, 4])
def test_a_muted_or_bypassed_getter_gives_nothing(mode: int) -> None:
    assert inputs_of(drawn(setter(), getter(mode=mode)), CLASSES)["9"] == {}
    assert inputs_of(drawn(setter(mode=mode), getter()), CLASSES)["9"] == {"images": ["1", 0]}
