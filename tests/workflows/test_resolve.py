"""Resolution of a request into the graph that is submitted."""

from dataclasses import replace
from typing import Any

import pytest

from comfyui_workflow.workflows.editor.conversion import QueueContext
from comfyui_workflow.workflows.model import Workflow
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.resolve import remote_routes, resolve_graph, widget_value_resolver
from comfyui_workflow.workflows.seed_mode import SeedMode
from tests.runs.test_state_machine import new_run
from tests.workflows.making import AT, class_of, file, node

REMOTE = ["COMBO", {"remote": {"route": "/files", "control_after_refresh": "first"}}]
OTHER = ["COMBO", {"remote": {"route": "/others"}}]
DEFINITIONS = Definitions({"K": class_of({"seed": ["INT", {"max": 99}], "r": REMOTE, "o": OTHER})})
FILE = file(node(1, "K", [1, "increment", "saved", "other"]))
GRAPH = {"1": {"class_type": "K", "inputs": {"seed": 50, "r": "made", "o": "it"}}}


def highest(least: int, most: int) -> int:
    return most


def request(**changes: Any) -> Any:
    workflow = Workflow(graph=changes.pop("graph", GRAPH), editor_file=changes.pop("editor_file", None))
    return replace(new_run().request, workflow=workflow, **changes)


def inputs(**changes: Any) -> Any:
    mode = changes.get("seed_mode", SeedMode.SAVED)
    queueing = QueueContext(
        at=AT, choose=lambda choices: choices[0], resolve_value=widget_value_resolver(mode, highest)
    )
    return resolve_graph(request(**changes), DEFINITIONS, queueing, highest)["1"]["inputs"]


@pytest.mark.parametrize(
    ("asked", "seed"),
    [
        ({}, 50),
        ({"seed_mode": SeedMode.CONTROL}, 50),
        ({"seed_mode": SeedMode.RANDOMIZE}, 99),
        ({"graph": {}, "editor_file": FILE}, 1),
        ({"graph": {}, "editor_file": FILE, "seed_mode": SeedMode.CONTROL}, 2),
        ({"graph": {}, "editor_file": FILE, "seed_mode": SeedMode.RANDOMIZE}, 99),
        ({"editor_file": FILE}, 50),
        ({"editor_file": FILE, "seed_mode": SeedMode.CONTROL}, 2),
        ({"editor_file": FILE, "seed_mode": SeedMode.RANDOMIZE}, 99),
        ({"seed_mode": SeedMode.RANDOMIZE, "inputs": {"1.seed": 7}}, 7),
    ],
)
def test_the_seed_that_is_submitted(asked: Any, seed: int) -> None:
    assert inputs(**asked)["seed"] == seed


def test_a_seed_of_minus_one_is_drawn() -> None:
    """In the graph itself, in the inputs, and as a text."""
    definitions = Definitions({"K": class_of({"seed": ["INT", {"min": 0, "max": 99}]})})
    queueing = QueueContext(
        at=AT, choose=lambda _: None, resolve_value=widget_value_resolver(SeedMode.SAVED, highest)
    )
    graph = {"1": {"class_type": "K", "inputs": {"seed": -1}}}
    for asked in (request(graph=graph), request(inputs={"1.seed": -1}), request(inputs={"1.seed": "-1"})):
        assert resolve_graph(asked, definitions, queueing, highest)["1"]["inputs"]["seed"] == 99


def test_a_graph_that_nothing_is_to_be_done_to_is_the_same_object() -> None:
    asked = request()
    queueing = QueueContext(at=AT, choose=lambda choices: choices[0])
    assert resolve_graph(asked, DEFINITIONS, queueing, highest) is asked.workflow.graph


def test_remote_choices_are_asked_for_only_where_they_are_taken() -> None:
    assert remote_routes(request(graph={}, editor_file=FILE), DEFINITIONS) == {"/files"}
    assert remote_routes(request(editor_file=FILE), DEFINITIONS) == set()
    assert remote_routes(request(graph={}, editor_file=FILE), Definitions({})) == set()
