"""The inputs of a node in a graph: which are links to other nodes, which are values typed into a widget."""

import inspect
from collections.abc import Callable
from typing import Any, TypeGuard

Graph = dict[str, Any]
"""{node_id: {"class_type": str, "inputs": {name: value or [node_id, slot]}, ...}}"""


def is_link(value: object) -> TypeGuard[list[Any]]:
    """ComfyUI's own reading: a list of a node id and a slot number; any other list is a value."""
    if not isinstance(value, list) or len(value) != 2:
        return False
    return isinstance(value[0], str) and type(value[1]) in (int, float)


def links_of(node: dict[str, Any]) -> list[list[Any]]:
    return [value for value in node["inputs"].values() if is_link(value)]


def schema_inputs(input_types: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Every input a class declares, required ones first, without the hidden ones."""
    return {**input_types.get("required", {}), **input_types.get("optional", {})}


def input_type_and_options(declared: Any) -> tuple[Any, dict[str, Any]]:
    """("INT", {"min": 1}) of an entry of INPUT_TYPES; the options may be left out."""
    return declared[0], declared[1] if len(declared) > 1 else {}


def accepted_names(function: Callable[..., object]) -> tuple[set[str], bool]:
    """The keyword names a node's class method takes, and whether it takes any other name too."""
    parameters = inspect.signature(function).parameters.values()
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    named = {
        parameter.name for parameter in parameters if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    return named - {"folders"}, takes_any


def accepted_widgets(
    function: Callable[..., object], inputs: dict[str, Any], schema: dict[str, Any]
) -> dict[str, Any]:
    """The values of a node's widgets that `function` wants to hear of; links are never among them."""
    names, takes_any = accepted_names(function)
    return {
        name: value
        for name, value in inputs.items()
        if name in schema and not is_link(value) and (takes_any or name in names)
    }
