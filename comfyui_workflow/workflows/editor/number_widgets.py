"""Number widgets of the editor: rounding and range of a value that comes from a primitive node."""

from math import floor
from typing import Any

from comfyui_workflow.workflows.node_definitions import InputDefinition

_FLOAT_MOST = 2048
"""Maximum of a FLOAT whose class declares no range; the minimum is 0."""
_LARGEST = 1e300
_MOST_STEPS = 1e15
"""Above this number of steps, the numbers of a browser are further apart than one step."""


def number_in_range(definition: InputDefinition, value: object) -> Any:
    """Returns the value rounded to whole steps, between minimum and maximum. A value that is not a number, or
    for another type of widget, is returned unchanged."""
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
        return _whole(number) if _is_number(number) else None
    return value if _is_number(value) else None  # type: ignore[return-value]


def _is_number(value: object) -> bool:
    """True for a number that is safe to calculate with: not NaN, and between -`_LARGEST` and `_LARGEST`."""
    is_any = isinstance(value, int | float) and not isinstance(value, bool)
    return is_any and -_LARGEST < value < _LARGEST  # type: ignore[operator]


def _in_steps(number: float, definition: InputDefinition) -> int | float:
    """Rounds to whole steps, counted from the minimum; half a step is rounded up."""
    step = _option(definition, "step") or 1
    offset = (_option(definition, "min") or 0) % step
    if step == 1 and isinstance(number, int):
        return number
    return _whole(_in_units(number - offset, step) + offset)


def _rounded(number: float, definition: InputDefinition) -> float:
    unit = _option(definition, "round")
    return number if not unit else round(_in_units(number, unit), 10)


def _in_units(number: float, unit: float) -> float:
    count = number / unit
    return floor(count + 0.5) * unit if abs(count) < _MOST_STEPS else number


def _clamped(
    number: float, definition: InputDefinition, least: float | None, most: float | None
) -> float | int:
    low, high = _option(definition, "min"), _option(definition, "max")
    low, high = least if low is None else low, most if high is None else high
    raised = number if low is None else max(number, low)
    return raised if high is None else min(raised, high)


def _option(definition: InputDefinition, name: str) -> float | None:
    option = definition.options.get(name)
    return option if _is_number(option) else None


def _whole(number: float) -> int | float:
    return int(number) if number == floor(number) else number
