"""Values for each participant, as the plugin computes them."""

import json
from typing import Any

import pytest

from comfyui_workflow.distributed.nodes import wants_load_balance
from comfyui_workflow.distributed.resolution import resolved
from comfyui_workflow.distributed.values import model_name, value_of, values_by_worker
from comfyui_workflow.errors import InvalidGraph

MASTER, FIRST, SECOND, THIRD = 0, 1, 2, 3


@pytest.mark.parametrize(
    ("default", "by_worker", "seed_index", "value"),
    [
        ("a", {"1": "b"}, MASTER, "a"),
        ("a", {"1": "b"}, FIRST, "b"),
        ("a", {"1": "b"}, SECOND, "a"),
        ("a", {"1": ""}, FIRST, "a"),
        ("a", {"0": "x", "_type": "STRING"}, MASTER, "a"),
        ("4", {"_type": "INT"}, MASTER, 4),
        ("4.9", {"_type": "INT"}, MASTER, 4),
        (7, {"_type": "INT"}, MASTER, 7),
        (7, {}, MASTER, "7"),
        (True, {"_type": "STRING"}, MASTER, "true"),
        ("none", {"_type": "INT", "1": "5"}, MASTER, "none"),
        ("4", {"_type": "INT", "1": "bad"}, FIRST, 4),
        ("4", {"_type": "INT", "1": "1e1"}, FIRST, 10),
        ("4", {"_type": "INT", "1": "inf"}, FIRST, 4),
        ("4", {"_type": "INT", "1": [1]}, FIRST, 4),
        ("4", {"_type": "FLOAT", "1": "2.5"}, FIRST, 2.5),
        ("4", {"_type": "FLOAT", "1": "nan"}, FIRST, 4.0),
        ("nan", {"_type": "FLOAT"}, MASTER, "nan"),
        ("euler", {"_type": "COMBO", "1": "dpm"}, FIRST, "dpm"),
        ("a", {"_type": ["INT"], "1": "b"}, FIRST, "b"),
        ("0", {"_type": "INT", "1": 0}, FIRST, 0),
    ],
)
def test_a_value_for_each(default: object, by_worker: dict[str, Any], seed_index: int, value: object) -> None:
    assert value_of(default, by_worker, seed_index) == value
    assert type(value_of(default, by_worker, seed_index)) is type(value)


@pytest.mark.parametrize("text", ["{", "", "[]", "3", "null", None, 3, ["1"], "[" * 100_000])
def test_values_that_are_no_object_are_none(text: object) -> None:
    assert values_by_worker(text) == {}


def test_the_name_of_a_model_is_a_text() -> None:
    assert [model_name(each) for each in ("a", 1, True, ["b"], ["b", 2])] == [
        "a",
        "1",
        "True",
        "b",
        ["b", "2"],
    ]


def color_of(seed: object, seed_index: int, **more: Any) -> Any:
    graph = {
        "1": {"class_type": "DistributedSeed", "inputs": {"seed": seed}},
        "2": {"class_type": "EmptyImage", "inputs": {"color": ["1", 0]}},
        **more,
    }
    return resolved(graph, seed_index)["2"]["inputs"]["color"]


@pytest.mark.parametrize(("seed", "first"), [(5, 6), ("5", 6), (5.9, 6), (0, 1), (2**50, 2**50 + 1)])
def test_seeds(seed: object, first: int) -> None:
    assert [color_of(seed, index) for index in (MASTER, FIRST, THIRD)] == [first - 1, first, first + 2]


@pytest.mark.parametrize("class_type", ["PrimitiveInt", "INTConstant"])
def test_a_seed_from_a_node_with_one_value(class_type: str) -> None:
    source = {"class_type": class_type, "inputs": {"value": 40}}
    assert color_of(["3", 0], SECOND, **{"3": source}) == 42


def test_a_seed_that_only_another_node_knows_stays_a_link_for_the_master() -> None:
    source = {"class_type": "SomeSeed", "inputs": {}}
    assert color_of(["3", 0], MASTER, **{"3": source}) == ["3", 0]
    with pytest.raises(InvalidGraph, match=r"Node 1 \(DistributedSeed\): give its seed as a whole number"):
        color_of(["3", 0], FIRST, **{"3": source})


@pytest.mark.parametrize("seed", ["five", "", None, {}, [1, 2, 3]])
def test_a_seed_that_is_no_number_is_refused(seed: object) -> None:
    with pytest.raises(InvalidGraph, match=r"Node 1 \(DistributedSeed\)"):
        color_of(seed, FIRST)


def test_a_list_as_a_value_does_not_become_a_link() -> None:
    values = json.dumps({"1": ["2", 0]})
    graph = {
        "1": {"class_type": "DistributedValue", "inputs": {"default_value": "a", "worker_values": values}},
        "2": {"class_type": "Custom", "inputs": {"names": ["1", 0]}},
    }
    assert resolved(graph, FIRST)["2"]["inputs"]["names"] == {"__value__": ["2", 0]}


def test_an_output_that_a_replaced_node_does_not_have_is_named() -> None:
    graph = {
        "1": {"class_type": "DistributedSeed", "inputs": {"seed": 1}},
        "2": {"class_type": "EmptyImage", "inputs": {"color": ["1", 1]}},
    }
    with pytest.raises(InvalidGraph, match=r"Node 2 .* links to output 1 of Node 1 \(DistributedSeed\)"):
        resolved(graph, MASTER)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (True, True),
        (1, True),
        ("yes", True),
        (" On ", True),
        (False, False),
        ("no", False),
        (["1", 0], False),
    ],
)
def test_load_balance(value: object, *, wanted: bool) -> None:
    graph = {"1": {"class_type": "DistributedCollector", "inputs": {"load_balance": value}}}
    assert wants_load_balance(graph) is wanted
    assert not wants_load_balance({"1": {"class_type": "DistributedCollector", "inputs": {}}})
