"""Values of seeds, and of other inputs with "control after generate", when a workflow is queued."""

from typing import Any

import pytest

from comfyui_workflow.workflows.editor.widget_values import WidgetValue
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.seed_mode import SeedMode
from comfyui_workflow.workflows.seeds import (
    LARGEST_SEED,
    resolve_widget_value,
    with_new_seeds,
    with_random_seeds,
    with_stepped_seeds,
)
from tests.workflows.making import class_of, definition


def highest(least: int, most: int) -> int:
    assert least <= most
    return most


def lowest(least: int, most: int) -> int:
    assert least <= most
    return least


def widget(declared: Any, value: Any, control: str | None, name: str = "seed") -> WidgetValue:
    return WidgetValue(definition=definition(**{name: declared}).inputs[0], value=value, control=control)


SEED = ["INT", {"min": 3, "max": 9}]


@pytest.mark.parametrize(
    ("mode", "control", "value", "queued"),
    [
        (SeedMode.SAVED, "randomize", 5, 5),
        (SeedMode.CONTROL, "randomize", 5, 9),
        (SeedMode.CONTROL, "fixed", 5, 5),
        (SeedMode.CONTROL, None, 5, 5),
        (SeedMode.CONTROL, "increment", 5, 6),
        (SeedMode.CONTROL, "increment", 9, 9),
        (SeedMode.CONTROL, "decrement", 5, 4),
        (SeedMode.CONTROL, "decrement", 3, 3),
        (SeedMode.CONTROL, "increment", "x", "x"),
        (SeedMode.CONTROL, "increment", True, True),
        (SeedMode.CONTROL, "something", 5, 5),
        (SeedMode.RANDOMIZE, "fixed", 5, 9),
        (SeedMode.RANDOMIZE, None, 5, 9),
    ],
)
def test_a_seed(mode: SeedMode, control: str | None, value: Any, queued: Any) -> None:
    assert resolve_widget_value(widget(SEED, value, control), mode, highest) == queued


def test_a_number_without_a_control_stays() -> None:
    assert (
        resolve_widget_value(widget(["INT", {}], 5, "randomize", "steps"), SeedMode.RANDOMIZE, highest) == 5
    )
    plain = ["INT", {"control_after_generate": False}]
    assert resolve_widget_value(widget(plain, 5, "randomize"), SeedMode.CONTROL, highest) == 5


CHOICES = [["a", "b", "c"], {"control_after_generate": True}]


@pytest.mark.parametrize(
    ("mode", "control", "value", "queued"),
    [
        (SeedMode.CONTROL, "randomize", "a", "c"),
        (SeedMode.CONTROL, "increment", "c", "a"),
        (SeedMode.CONTROL, "decrement", "a", "c"),
        (SeedMode.CONTROL, "fixed", "b", "b"),
        (SeedMode.CONTROL, "increment", "not there", "not there"),
        (SeedMode.RANDOMIZE, "randomize", "a", "a"),
    ],
)
def test_a_choice(mode: SeedMode, control: str, value: str, queued: str) -> None:
    assert resolve_widget_value(widget(CHOICES, value, control, "name"), mode, highest) == queued


@pytest.mark.parametrize(
    ("options", "least", "most"),
    [
        ({}, 0, LARGEST_SEED),
        ({"min": -5, "max": 5}, -5, 5),
        ({"min": 1.0, "max": 5.9}, 1, 5),
        ({"min": -(2**63), "max": 2**64}, -LARGEST_SEED, LARGEST_SEED),
        ({"min": -(2**60), "max": -(2**55)}, -(2**55), -(2**55)),
        ({"min": 2**60, "max": 2**61}, 2**60, 2**60),
        ({"min": 9, "max": 3}, 9, 9),
        ({"min": 0, "max": 10**400}, 0, LARGEST_SEED),
        ({"min": float("nan"), "max": float("inf")}, 0, LARGEST_SEED),
        ({"min": "1", "max": [5]}, 0, LARGEST_SEED),
    ],
)
def test_the_range_to_draw_from(options: Any, least: int, most: int) -> None:
    seed = widget(["INT", options], 1, "randomize")
    assert resolve_widget_value(seed, SeedMode.RANDOMIZE, lowest) == least
    assert resolve_widget_value(seed, SeedMode.RANDOMIZE, highest) == most


NUMBERS = [[4, 5], {"control_after_generate": True}]


def test_a_graph_has_every_seed_drawn_that_is_not_linked() -> None:
    definitions = Definitions(
        {
            "K": class_of(
                {"seed": ["INT", {"max": 77}], "noise_seed": ["INT", {}], "steps": ["INT", {}], "of": NUMBERS}
            )
        }
    )
    graph = {
        "1": {"class_type": "K", "inputs": {"seed": 1, "noise_seed": ["2", 0], "steps": 3, "of": 4}},
        "2": {"class_type": "Unknown", "inputs": {"seed": 4}},
        "3": {"class_type": "K"},
    }
    assert with_new_seeds(graph, definitions, highest) == {
        "1": {"class_type": "K", "inputs": {"seed": 77, "noise_seed": ["2", 0], "steps": 3, "of": 4}},
        "2": {"class_type": "Unknown", "inputs": {"seed": 4}},
        "3": {"class_type": "K", "inputs": {}},
    }
    assert graph["1"]["inputs"]["seed"] == 1


def test_minus_one_is_a_random_seed_where_it_cannot_be_a_seed() -> None:
    declared = {
        "seed": ["INT", {"min": 0, "max": 2**64 - 1}],
        "noise_seed": ["INT", {"min": -1}],
        "count": ["INT", {"min": 0}],
        "other": ["INT", {"min": 5, "max": 8, "control_after_generate": True}],
    }
    definitions = Definitions({"K": class_of(declared), "Open": class_of({"seed": ["INT"]})})
    values = {"seed": -1, "noise_seed": -1, "count": -1, "other": -1.0}
    graph = {
        "1": {"class_type": "K", "inputs": values},
        "2": {"class_type": "K", "inputs": {"seed": 7, "other": ["1", 0]}},
        "3": {"class_type": "Open", "inputs": {"seed": -1}},
        "4": {"class_type": "Unknown", "inputs": {"seed": -1}},
        "5": {"class_type": "K"},
    }
    found = with_random_seeds(graph, definitions, highest)
    assert found["1"]["inputs"] == {**values, "seed": LARGEST_SEED, "other": 8}
    assert {**found, "1": graph["1"]} == graph
    assert values["seed"] == -1, "the graph of the request is not changed"
    assert with_random_seeds({"2": graph["2"]}, definitions, highest) == {"2": graph["2"]}


def test_every_seed_is_stepped_within_its_limits_and_links_stay() -> None:
    declared = {
        "seed": ["INT", {"control_after_generate": True, "min": 0, "max": 99}],
        "noise_seed": ["INT", {"control_after_generate": True, "min": 0, "max": 99}],
        "steps": ["INT", {}],
    }
    definitions = Definitions({"K": class_of(declared)})
    graph = {
        "1": {"class_type": "K", "inputs": {"seed": 98, "noise_seed": ["2", 0], "steps": 3}},
        "2": {"class_type": "Unknown", "inputs": {"seed": 4}},
        "3": {"class_type": "K"},
    }
    stepped = [with_stepped_seeds(graph, definitions, step)["1"]["inputs"]["seed"] for step in range(4)]
    assert stepped == [98, 99, 0, 1]
    assert with_stepped_seeds(graph, definitions, 1)["1"]["inputs"]["noise_seed"] == ["2", 0]
    assert with_stepped_seeds(graph, definitions, 1)["2"] == graph["2"]
