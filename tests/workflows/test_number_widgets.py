"""Numbers that widgets receive from a primitive node: steps and ranges."""

from typing import Any

import pytest

from comfyui_workflow.workflows.editor.number_widgets import number_in_range
from tests.workflows.making import definition


@pytest.mark.parametrize(
    ("kind", "options", "given", "shown"),
    [
        ("INT", {}, 5, 5),
        ("INT", {}, 5.6, 6),
        ("INT", {}, 2.5, 3),
        ("INT", {}, -2.5, -2),
        ("INT", {}, None, 0),
        ("INT", {}, "7", 7),
        ("INT", {}, "many", "many"),
        ("INT", {}, True, True),
        ("INT", {}, 10**6, 10**6),
        ("INT", {"min": 0, "max": 10}, 50, 10),
        ("INT", {"min": 0, "max": 10}, -50, 0),
        ("INT", {"min": 16, "step": 8}, 21, 24),
        ("INT", {"min": 5, "step": 3}, 9, 8),
        ("INT", {"min": 5, "step": 3}, 10, 11),
        ("INT", {"min": 0, "max": 2**64 - 1}, 2**64 - 1, 2**64 - 1),
        ("FLOAT", {}, 3000, 2048),
        ("FLOAT", {}, -1.5, 0),
        ("FLOAT", {"min": -2}, -1.5, -1.5),
        ("FLOAT", {"round": 0.01, "step": 0.5}, 1.234, 1.23),
        ("FLOAT", {"round": False}, 1.234, 1.234),
        ("FLOAT", {"max": 1.0}, 7, 1.0),
        ("STRING", {"min": 1}, 0, 0),
        ("COMBO", {"max": 1}, 3, 3),
    ],
)
def test_a_number_keeps_to_its_widget(kind: str, options: Any, given: Any, shown: Any) -> None:
    found = number_in_range(definition(n=[kind, options]).inputs[0], given)
    assert (found, type(found)) == (shown, type(shown))


@pytest.mark.parametrize("kind", ["INT", "FLOAT"])
@pytest.mark.parametrize("option", [float("nan"), float("inf"), 10**400, 1e-320, -1, 0, True, "8", []])
def test_numbers_that_cannot_be_reckoned_with_do_no_harm(kind: str, option: Any) -> None:
    for name in ("min", "max", "step", "round"):
        one = definition(n=[kind, {name: option}]).inputs[0]
        for given in (float("nan"), float("inf"), 10**400, 1e299, "nan", "1e999", 3, 3.5):
            number_in_range(one, given)
