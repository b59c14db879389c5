"""Inputs of a node in a graph: links to other nodes, and values of widgets."""

import inspect
from collections.abc import Callable
from typing import Any, TypeGuard

Graph = dict[str, Any]
"""{node_id: {"class_type": str, "inputs": {name: value or [node_id, slot]}, ...}}"""


def is_link(value: object) -> TypeGuard[list[Any]]:
    """True for a list of a node id and a slot number. As in ComfyUI, any other list is a value."""
    if not isinstance(value, list) or len(value) != 2:
        return False
    return isinstance(value[0], str) and type(value[1]) in (int, float)


def links_of(node: dict[str, Any]) -> list[list[Any]]:
    return [value for value in node["inputs"].values() if is_link(value)]


def input_type_and_options(declared: Any) -> tuple[Any, dict[str, Any]]:
    """Splits an entry of INPUT_TYPES into type and options: ("INT", {"min": 1}). The options are optional."""
    return declared[0], declared[1] if len(declared) > 1 else {}


def accepted_names(function: Callable[..., object]) -> tuple[set[str], bool]:
    """Returns (keyword names that a class method accepts, True if it accepts any other name too)."""
    parameters = inspect.signature(function).parameters.values()
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    named = {
        parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    return named - {"folders"}, takes_any


def accepted_widgets(
    function: Callable[..., object], inputs: dict[str, Any], schema: dict[str, Any]
) -> dict[str, Any]:
    """Returns the widget values that `function` accepts as keywords. Links are left out."""
    names, takes_any = accepted_names(function)
    return {
        name: value
        for name, value in inputs.items()
        if name in schema and not is_link(value) and (takes_any or name in names)
    }
