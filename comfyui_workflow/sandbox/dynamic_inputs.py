"""Inputs of a class that depend on the values in the graph: dynamic combos, and inputs that grow.

A dynamic combo has inputs of its own for each of its options; an input that grows stands for a row of inputs.
In a graph their names are joined with dots ("resize_type.width", "images.image0"); a node receives them as
one dictionary ({"resize_type": "scale width", "width": 512}).
"""

from dataclasses import dataclass, field
from typing import Any

from comfyui_workflow.sandbox.node import InputTypes

MATCH_TYPE = "COMFY_MATCHTYPE_V3"


@dataclass(frozen=True, kw_only=True)
class LiveInputs:
    """The inputs that a class has for one node of a graph.

    `places` has the place of each nested input in the arguments of the node: {"images.image0": ("images",
    "image0")}. `empty` has the growing inputs that the node fills with nothing.
    """

    required: dict[str, Any] = field(default_factory=dict)
    optional: dict[str, Any] = field(default_factory=dict)
    places: dict[str, tuple[str, ...]] = field(default_factory=dict)
    empty: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def has_dynamic(self) -> bool:
        return bool(self.places or self.empty)

    @property
    def all(self) -> dict[str, Any]:
        return {**self.required, **self.optional}

    def nested(self, values: dict[str, Any]) -> dict[str, Any]:
        """Returns the arguments of the node: the dotted names become dictionaries."""
        arguments = {name: value for name, value in values.items() if name not in self.places}
        for path in self.empty:
            _put(arguments, path, {})
        for name, path in self.places.items():
            _put(arguments, path, values.get(name))
        return arguments


def live_inputs(input_types: InputTypes, values: dict[str, Any]) -> LiveInputs:
    """Returns the inputs that the class has when `values` are the inputs of the node."""
    live = LiveInputs()
    _add_sections(live, input_types, values, ())
    return live


def _add_sections(
    live: LiveInputs, sections: dict[str, dict[str, Any]], values: dict[str, Any], path: tuple[str, ...]
) -> None:
    for section in ("required", "optional"):
        for name, declared in sections.get(section, {}).items():
            _add(live, section, declared, values, (*path, name))


def _add(
    live: LiveInputs, section: str, declared: Any, values: dict[str, Any], path: tuple[str, ...]
) -> None:
    match declared[0]:
        case "COMFY_DYNAMICCOMBO_V3":
            _add_option(live, section, declared, values, path)
        case "COMFY_AUTOGROW_V3":
            _add_row(live, declared[1]["template"], values, path)
        case _:
            _declare(live, section, path, declared)


def _declare(live: LiveInputs, section: str, path: tuple[str, ...], declared: Any) -> None:
    name = ".".join(path)
    (live.required if section == "required" else live.optional)[name] = declared
    if len(path) > 1:
        live.places[name] = path


def _add_option(
    live: LiveInputs, section: str, declared: Any, values: dict[str, Any], path: tuple[str, ...]
) -> None:
    """Adds the inputs of the chosen option. Without a known option the class has no such input at all: the
    validation then accepts it, and the node fails."""
    name = ".".join(path)
    for option in declared[1]["options"]:
        if name in values and values[name] == option["key"]:
            _add_sections(live, option["inputs"], values, path)
            _declare(live, section, path, declared)
            live.places[name] = (*path, path[-1])
            return


def _add_row(
    live: LiveInputs, template: dict[str, Any], values: dict[str, Any], path: tuple[str, ...]
) -> None:
    section, declared = next(
        (section, next(iter(inputs.values()))) for section, inputs in template["input"].items() if inputs
    )
    names = template.get("names") or [f"{template['prefix']}{index}" for index in range(template["max"])]
    is_empty = True
    for index, name in enumerate(names):
        is_required = section == "required" and index < template["min"]
        is_given = ".".join((*path, name)) in values
        full_path = (*path, name)
        (live.required if is_required else live.optional)[".".join(full_path)] = declared
        if is_given:
            live.places[".".join(full_path)] = full_path
            is_empty = False
    if is_empty:
        live.empty.append(path)


def _put(arguments: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    for part in path[:-1]:
        arguments = arguments.setdefault(part, {})
    arguments[path[-1]] = value
