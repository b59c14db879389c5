"""What the editor's number widgets make of a value that a primitive node gives them."""

from math import floor, isfinite
from typing import Any

from comfyui_workflow.workflows.definitions import InputDefinition

_FLOAT_MOST = 2048
"""Of a FLOAT whose class names no range, from 0."""


def number_in_range(definition: InputDefinition, value: object) -> Any:
    """In whole steps, between the least and the most. What is no number, and for other widgets, as it is."""
    number = _number(value)
    if number is None or definition.type not in ("INT", "FLOAT"):
        return value
    if definition.type == "INT":
        return _clamped(_in_steps(number, definition), definition, None, None)
    return _clamped(_rounded(number, definition), definition, 0, _FLOAT_MOST)


def _number(value: object) -> float | int | None:
    if value is None:
        return 0
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return None
        return _whole(number) if isfinite(number) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _in_steps(number: float, definition: InputDefinition) -> int | float:
    """Counted from the least; half a step is a whole one."""
    step = _option(definition, "step") or 1
    offset = (_option(definition, "min") or 0) % step
    return (
        number
        if step == 1 and isinstance(number, int)
        else _whole(floor((number - offset) / step + 0.5) * step + offset)
    )


def _rounded(number: float, definition: InputDefinition) -> float:
    unit = _option(definition, "round")
    return number if not unit else round(floor(number / unit + 0.5) * unit, 10)


def _clamped(
    number: float, definition: InputDefinition, least: float | None, most: float | None
) -> float | int:
    low, high = _option(definition, "min"), _option(definition, "max")
    low, high = least if low is None else low, most if high is None else high
    raised = number if low is None else max(number, low)
    return raised if high is None else min(raised, high)


def _option(definition: InputDefinition, name: str) -> float | None:
    option = definition.options.get(name)
    is_number = isinstance(option, int | float) and not isinstance(option, bool) and isfinite(option)
    return option if is_number else None


def _whole(number: float) -> int | float:
    return int(number) if number == floor(number) else number
