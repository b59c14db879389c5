"""Parsing of node definitions."""

from typing import Any

import pytest

from comfyui_workflow.workflows.node_definitions import Definitions, InputDefinition
from tests.workflows.making import class_of, definition


def one(*declared: Any, name: str = "a") -> InputDefinition:
    return definition(**{name: list(declared)}).inputs[0]


@pytest.mark.parametrize(
    ("declared", "default"),
    [
        (["INT"], 0),
        (["FLOAT", {}], 0),
        (["STRING"], ""),
        (["STRING", {"default": 5}], "5"),
        (["BOOLEAN"], False),
        (["INT", {"default": 7}], 7),
        (["INT", {"default": None}], 0),
        ([["x", "y"]], "x"),
        ([["x", "y"], {"default": "y"}], "y"),
        ([[]], None),
        (["COMBO", {"options": ["x"]}], "x"),
        (["COMBO", {"options": ["x"], "multi_select": True, "default": ["x"]}], []),
        (["MARKDOWN", {"default": "**x**"}], ""),
        (["COLOR", {"default": "#ff0000"}], "#ff0000"),
        (["IMAGE"], None),
    ],
)
def test_what_a_new_node_has(declared: Any, default: Any) -> None:
    assert one(*declared).default == default


@pytest.mark.parametrize(
    ("declared", "is_widget"),
    [
        (["INT"], True),
        ([["x"]], True),
        (["IMAGE"], False),
        (["*"], False),
        (["INT,FLOAT"], False),
        (["INT", {"forceInput": True}], False),
        (["INT", {"defaultInput": True}], True),
        (["MY_TYPE", {"widgetType": "STRING"}], True),
        (["INT", {"widgetType": "OF_A_PACK"}], True),
        (["IMAGE", {"widgetType": "OF_A_PACK"}], False),
        (["INT", {"widgetType": ["STRING"]}], True),
        (["WEBCAM"], True),
        ("INT", False),
        ([], False),
        ([5], False),
    ],
)
def test_what_is_set_at_the_node_itself(declared: Any, is_widget: bool) -> None:
    assert definition(a=declared).inputs[0].is_widget is is_widget


def test_inputs_come_in_the_order_that_is_told_and_required_ones_first() -> None:
    told = {
        "input": {"optional": {"o": ["INT"]}, "required": {"b": ["INT"], "a": ["INT"], "c": ["INT"]}},
        "input_order": {"optional": ["o"], "required": ["a", "gone", "b", 5]},
    }
    found = Definitions({"X": told}).get("X")
    assert found is not None
    assert [(each.name, each.is_required) for each in found.inputs] == [
        ("a", True), ("b", True), ("c", True), ("o", False)
    ]  # fmt: skip


def test_what_is_declared_twice_is_the_second_in_the_place_of_the_first() -> None:
    told = class_of({"n": ["INT"], "b": ["INT"]}, {"n": ["STRING", {"default": "opt"}], "m": ["INT"]})
    found = Definitions({"X": told}).get("X")
    assert found is not None
    assert [(each.name, each.type, each.is_required) for each in found.inputs] == [
        ("n", "STRING", True), ("b", "INT", True), ("m", "INT", False)
    ]  # fmt: skip


def test_choices_that_comfyui_compares_stand_in_the_place_of_the_type() -> None:
    assert (one(["x"]).type, one(["x"]).choices, one(["x"]).are_choices_checked) == ("COMBO", ("x",), True)
    new = one("COMBO", {"options": ["x"]})
    assert (new.choices, new.are_choices_checked) == (("x",), False)
    assert one("COMBO", {"options": "x"}).choices is None


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ({"route": "/files", "control_after_refresh": "first", "refresh_button": True}, (True, True)),
        ({"route": "/files", "control_after_refresh": "last"}, (False, False)),
        ({"route": "http://elsewhere/files"}, None),
        ({}, None),
        ("x", None),
    ],
)
def test_remote_choices_are_asked_of_the_instance_alone(remote: Any, expected: Any) -> None:
    found = one("COMBO", {"remote": remote}).remote
    assert (found and (found.takes_first, found.has_button)) == expected


def test_a_class_that_says_nothing_is_there() -> None:
    definitions = Definitions({"X": {}, "Y": None, "Z": {"display_name": "Zed", "output": ["A", ["x"], 5]}})
    assert "X" in definitions
    assert "Y" not in definitions
    assert definitions.get("Y") is None
    assert definitions.get("W") is None
    found, named = definitions.get("X"), definitions.get("Z")
    assert found is not None
    assert (found.display_name, found.inputs, found.outputs, found.is_output) == ("X", (), (), False)
    assert named is not None
    assert (named.display_name, named.outputs) == ("Zed", ("A", "COMBO", "*"))
