"""Assignment of saved values to widgets."""

from typing import Any

import pytest

from comfyui_workflow.workflows.editor.widget_values import javascript_text, widget_values
from comfyui_workflow.workflows.node_definitions import Definitions, NodeDefinition
from tests.workflows.making import class_of, definition

INT = ["INT", {"default": 3}]
TEXT = ["STRING", {"default": "t"}]
BOX = ["STRING", {"multiline": True}]
PICTURE = [["a.png", "b.png"], {"image_upload": True}]
CONTROLLED = [["a", "b"], {"control_after_generate": True}]
FORCED = ["INT", {"forceInput": True}]


def values(told: NodeDefinition, saved: Any) -> dict[str, Any]:
    return {name: widget.value for name, widget in widget_values(told, saved).items()}


@pytest.mark.parametrize(
    ("inputs", "saved", "expected"),
    [
        ({"a": INT, "s": ["IMAGE"], "b": TEXT}, [1, "x"], {"a": 1, "b": "x"}),
        ({"a": INT, "b": TEXT}, [1], {"a": 1, "b": "t"}),
        ({"a": INT}, [1, 2, 3], {"a": 1}),
        ({"a": INT, "b": TEXT}, [None, None], {"a": None, "b": None}),
        ({"a": INT, "b": TEXT}, {"b": "x", "c": 1}, {"a": 3, "b": "x"}),
        ({"a": INT}, [{"deep": [1]}], {"a": {"deep": [1]}}),
        ({"seed": INT, "b": TEXT}, [1, "fixed", "x"], {"seed": 1, "b": "x"}),
        ({"noise_seed": INT, "b": TEXT}, [1, "fixed", "x"], {"noise_seed": 1, "b": "x"}),
        (
            {"seed": ["INT", {"control_after_generate": False}], "b": TEXT},
            [1, "x"],
            {"seed": 1, "b": "x"},
        ),
        (
            {"n": ["INT", {"control_after_generate": "then"}], "b": TEXT},
            [1, "fixed", "x"],
            {"n": 1, "b": "x"},
        ),
        ({"seed": ["FLOAT", {}], "b": TEXT}, [1.5, "x"], {"seed": 1.5, "b": "x"}),
        ({"seed": TEXT, "b": TEXT}, ["s", "x"], {"seed": "s", "b": "x"}),
        ({"c": CONTROLLED, "b": TEXT}, ["a", "fixed", "", "x"], {"c": "a", "b": "x"}),
        ({"f": FORCED, "b": TEXT}, ["x"], {"b": "x"}),
    ],
)
def test_values_by_position(inputs: Any, saved: Any, expected: Any) -> None:
    assert values(definition(**inputs), saved) == expected


@pytest.mark.parametrize(
    ("inputs", "saved", "expected"),
    [
        ({"f": FORCED, "b": TEXT, "c": INT}, [9, "x", 1], {"b": "x", "c": 1}),
        ({"b": TEXT, "f": FORCED, "c": INT}, ["x", 9, 1], {"b": "x", "c": 1}),
        ({"f": FORCED, "b": TEXT, "c": INT}, ["x", 1], {"b": "x", "c": 1}),
        ({"f": FORCED, "seed": INT, "b": TEXT}, [9, 5, "fixed", "x"], {"seed": 5, "b": "x"}),
        ({"s": ["MODEL", {"forceInput": True}], "b": TEXT, "c": INT}, [9, "x", 1], {"b": "x", "c": 1}),
        ({"p": PICTURE, "f": FORCED, "b": TEXT}, ["a", 9, "x", "image"], {"p": "a", "b": "x"}),
    ],
)
def test_old_rows_have_values_of_what_is_a_socket_now(inputs: Any, saved: Any, expected: Any) -> None:
    assert values(definition(**inputs), saved) == expected


def test_the_button_to_upload_comes_last_where_the_class_tells_an_order() -> None:
    told = class_of({"p": PICTURE, "a": INT}, {"b": TEXT})
    in_order = Definitions({"X": told}).get("X")
    unordered = Definitions({"X": {"input": told["input"]}}).get("X")
    assert in_order is not None
    assert unordered is not None
    assert values(in_order, ["a.png", 1, "x", "image"]) == {"p": "a.png", "a": 1, "b": "x"}
    assert values(unordered, ["a.png", 1, "image", "x"]) == {"p": "a.png", "a": 1, "b": "x"}


def test_a_button_that_the_class_declares_is_where_it_is_declared_and_is_no_value() -> None:
    declared = definition(p=[["a.png"]], upload=["IMAGEUPLOAD", {}], b=TEXT)
    assert values(declared, ["a.png", "image", "x"]) == {"p": "a.png", "b": "x"}


def test_the_button_of_remote_choices_takes_a_place() -> None:
    remote = ["COMBO", {"remote": {"route": "/files", "refresh_button": True}}]
    assert values(definition(c=remote, b=TEXT), ["a", None, "x"]) == {"c": "a", "b": "x"}
    remote = ["COMBO", {"remote": {"route": "/files"}}]
    assert values(definition(c=remote, b=TEXT), ["a", "x"]) == {"c": "a", "b": "x"}


def test_what_happens_after_each_prompt_is_known() -> None:
    found = widget_values(definition(seed=INT, c=CONTROLLED), [1, "increment", "a", "randomize", ""])
    assert [widget.control for widget in found.values()] == ["increment", "randomize"]
    found = widget_values(definition(seed=INT, c=CONTROLLED), [1, True])
    assert [(widget.control, widget.is_saved) for widget in found.values()] == [(None, True), (None, False)]


@pytest.mark.parametrize(
    ("saved", "shown"),
    [
        (None, ""),
        (["a", ["b", None, []], 1], "a,b,,,1"),
        (True, "true"),
        (3.0, "3"),
        (2.5, "2.5"),
        (1e21, "1e+21"),
        ({"a": 1}, "[object Object]"),
        ("a\r\nb\rc", "a\nb\nc"),
    ],
)
def test_a_box_for_text_holds_text(saved: Any, shown: str) -> None:
    assert values(definition(t=BOX), [saved]) == {"t": shown}
    assert values(definition(t=["MARKDOWN"]), [saved]) == {"t": shown}
    assert values(definition(t=TEXT), [saved]) == {"t": saved}


def test_text_however_deep() -> None:
    deep: Any = "x"
    for _ in range(5_000):
        deep = [deep]
    assert javascript_text(deep) == "x"


@pytest.mark.parametrize(
    ("saved", "name"),
    [
        ("m.png", "m.png"),
        ({"filename": "m.png", "subfolder": "q", "type": "input"}, "q/m.png"),
        ({"filename": "m.png", "subfolder": ""}, "m.png"),
        ([{"filename": "m.png"}], "m.png"),
        ([["m.png", "n.png"]], "m.png"),
        (None, "a.png"),
        ("", "a.png"),
        (5, ""),
        ({"other": 1}, {"other": 1}),
    ],
)
def test_a_file_is_meant_by_its_name(saved: Any, name: Any) -> None:
    assert values(definition(p=PICTURE), [saved]) == {"p": name}
