"""Nodes that exist in the browser only."""

from typing import Any

import pytest

from comfyui_workflow.workflows.editor.left_out import left_out_findings
from comfyui_workflow.workflows.findings import Severity
from comfyui_workflow.workflows.model import GraphRequest, Workflow
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.resolve import left_out
from tests.workflows.making import class_of, file, graph_of, inputs_of, node, socket, subgraph

CLASSES = {
    "Make": class_of({"w": ["INT", {"default": 64}]}, output=["IMAGE"]),
    "Show": class_of({"images": ["IMAGE"]}, {"mask": ["MASK"]}, output_node=True),
    "Anything Everywhere": class_of({}, {"anything": ["*"]}),
}
MAKE = node(1, "Make", [8])
SHOW = node(9, "Show", inputs=[socket("images", 1, "IMAGE")])
DIRECT = [(1, 1, 0, 9, 0)]


def any_socket(link: int | None) -> Any:
    return socket("", link, "*")


@pytest.mark.parametrize(
    "extra",
    [
        node(5, "Label (rgthree)"),
        node(5, "Bookmark (rgthree)", ["1", 1]),
        node(5, "Fast Muter (rgthree)", inputs=[any_socket(2)]),
        node(5, "Label of a pack that nobody knows", ["text"]),
        node(5, "Switch of a pack that nobody knows", inputs=[any_socket(2), any_socket(None)]),
    ],
)
def test_what_nothing_needs_is_left_out_with_a_notice(extra: Any) -> None:
    links = [*DIRECT, (2, 1, 0, 5, 0)]
    whole = file(MAKE, extra, SHOW, links=links)
    assert inputs_of(whole, CLASSES) == {"1": {"w": 8}, "9": {"images": ["1", 0]}}
    (notice,) = left_out_findings(whole, Definitions(CLASSES))
    assert (notice.node_id, notice.class_type, notice.severity) == ("5", extra["type"], Severity.WARNING)
    assert str(notice).startswith(f"node 5 ({extra['type']}): this ComfyUI has no node class")


@pytest.mark.parametrize(
    "missing",
    [
        node(5, "Saver", inputs=[socket("images", 2, "IMAGE")]),
        node(5, "Saver", inputs=[any_socket(2)], properties={"Node name for S&R": "Saver"}),
        node(5, "Saver", properties={"cnr_id": "a-pack"}),
    ],
)
def test_a_class_that_is_missing_stays_so_that_the_run_is_refused(missing: Any) -> None:
    whole = file(MAKE, missing, SHOW, links=[*DIRECT, (2, 1, 0, 5, 0)])
    assert "5" in inputs_of(whole, CLASSES)
    assert left_out_findings(whole, Definitions(CLASSES)) == []


def test_what_gives_a_needed_value_stays() -> None:
    giver = node(5, "Giver", outputs=[{"type": "IMAGE"}])
    found = inputs_of(file(giver, SHOW, links=[(1, 5, 0, 9, 0)]), CLASSES)
    assert found["9"] == {"images": ["5", 0]}
    assert "5" in found


def test_a_request_tells_what_is_left_out_only_if_its_file_is_converted() -> None:
    editor_file = file(MAKE, node(5, "Label (rgthree)"), SHOW, links=DIRECT)
    definitions = Definitions(CLASSES)
    graph = graph_of(file(MAKE), CLASSES)
    told = left_out(GraphRequest(workflow=Workflow(graph={}, editor_file=editor_file)), definitions)
    assert [each.node_id for each in told] == ["5"]
    assert left_out(GraphRequest(workflow=Workflow(graph=graph, editor_file=editor_file)), definitions) == []
    assert left_out(GraphRequest(workflow=Workflow(graph=graph)), definitions) == []


def test_notes_and_muted_nodes_are_no_news() -> None:
    whole = file(node(3, "Note", ["x"]), node(4, "Reroute"), node(5, "Label (rgthree)", mode=2), MAKE)
    assert left_out_findings(whole, Definitions(CLASSES)) == []


def test_a_reroute_of_a_pack_is_followed() -> None:
    reroute = node(5, "Reroute (rgthree)", inputs=[any_socket(2)])
    links = [(1, 5, 0, 9, 0), (2, 1, 0, 5, 0)]
    assert inputs_of(file(MAKE, reroute, SHOW, links=links), CLASSES)["9"] == {"images": ["1", 0]}


def everywhere(**other: Any) -> Any:
    return {
        "upstream": 1,
        "upstream_slot": 0,
        "downstream": 9,
        "downstream_slot": 0,
        "type": "IMAGE",
        **other,
    }


@pytest.mark.parametrize("classes", [CLASSES, {"Make": CLASSES["Make"], "Show": CLASSES["Show"]}])
def test_a_node_that_sends_everywhere_is_followed(classes: Any) -> None:
    show = node(9, "Show", inputs=[socket("images", None, "IMAGE")])
    sender = node(5, "Anything Everywhere", inputs=[socket("anything", 2)])
    whole = file(MAKE, sender, show, links=[(2, 1, 0, 5, 0)], extra={"ue_links": [everywhere(upstream="1")]})
    assert inputs_of(whole, classes)["9"] == {"images": ["1", 0]}


def test_a_node_that_sends_everywhere_in_a_subgraph_is_followed() -> None:
    show = node(9, "Show", inputs=[socket("images", None, "IMAGE")])
    inside = subgraph("S", MAKE, show, extra={"ue_links": [everywhere()]})
    whole = file(node(2, "S"), definitions={"subgraphs": [inside]})
    assert inputs_of(whole, CLASSES)["2:9"] == {"images": ["2:1", 0]}


def test_an_input_whose_own_link_is_gone_gets_what_is_sent_everywhere() -> None:
    show = node(9, "Show", inputs=[socket("images", 44, "IMAGE")])
    assert inputs_of(file(MAKE, show, extra={"ue_links": [everywhere()]}), CLASSES)["9"] == {
        "images": ["1", 0]
    }


@pytest.mark.parametrize(
    "broken",
    [
        [everywhere(downstream_slot=1)],
        [everywhere(downstream_slot="0")],
        [everywhere(downstream=77)],
        [everywhere(upstream=None)],
        [everywhere(upstream=77)],
        ["x", None],
        {"a": 1},
    ],
)
def test_a_link_everywhere_to_nowhere_is_none(broken: Any) -> None:
    show = node(9, "Show", inputs=[socket("images", None, "IMAGE")])
    assert inputs_of(file(MAKE, show, extra={"ue_links": broken}), CLASSES)["9"] == {}


def test_an_input_with_a_link_of_its_own_keeps_it() -> None:
    other = node(2, "Make", [9])
    whole = file(MAKE, other, SHOW, links=DIRECT, extra={"ue_links": [everywhere(upstream=2)]})
    assert inputs_of(whole, CLASSES)["9"] == {"images": ["1", 0]}
