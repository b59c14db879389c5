"""The inputs that a class has for one node: dynamic inputs replaced by the inputs that they stand for.

How it works: as in ComfyUI's own validation, the value of a dynamic combo selects the inputs of one option,
and an autogrow stands for a numbered or named row of inputs. Nested names are joined with dots
(`resize_type.width`, `images.image0`). The rules of the editor differ: see `workflows.dynamic_inputs`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from comfyui_workflow.parsing.untrusted import as_list, as_object, as_text
from comfyui_workflow.workflows.dynamic_inputs import MOST_ELEMENTS, is_dynamic, option_keys
from comfyui_workflow.workflows.node_definitions import (
    AUTOGROW,
    DYNAMIC_COMBO,
    InputDefinition,
    NodeDefinition,
    parse_inputs,
)

_DEEPEST = 10


def has_dynamic_inputs(definition: NodeDefinition) -> bool:
    return any(map(is_dynamic, definition.inputs))


def live_definition(definition: NodeDefinition, given: Mapping[str, Any] | None) -> NodeDefinition:
    """Returns the class with the inputs that it has when `given` are the values of the node; the same object
    if it has no dynamic inputs."""
    if not has_dynamic_inputs(definition):
        return definition
    values = given or {}
    return replace(definition, inputs=tuple(_live(definition.inputs, values, depth=0)))


def _live(
    inputs: tuple[InputDefinition, ...], given: Mapping[str, Any], *, depth: int
) -> Iterator[InputDefinition]:
    for declared in inputs:
        if declared.type == DYNAMIC_COMBO:
            yield _with_choices(declared)
            if depth < _DEEPEST:
                yield from _live(_of_option(declared, given.get(declared.name)), given, depth=depth + 1)
        elif declared.type == AUTOGROW:
            yield from _elements(declared)
        else:
            yield declared


def _with_choices(combo: InputDefinition) -> InputDefinition:
    """Returns the combo with the keys of its options as choices."""
    return replace(combo, choices=tuple(option_keys(combo)))


def _of_option(combo: InputDefinition, chosen: Any) -> tuple[InputDefinition, ...]:
    for option in map(as_object, as_list(combo.options.get("options"))):
        if isinstance(chosen, str) and option.get("key") == chosen:
            inner = parse_inputs(as_object(option.get("inputs")), {}, f"{combo.name}.")
            return tuple(_as_checked(each) for each in inner)
    return ()


def _as_checked(declared: InputDefinition) -> InputDefinition:
    """Every version that has dynamic inputs checks all lists of choices."""
    return replace(declared, are_choices_checked=declared.type == "COMBO")


def is_needed_choice(declared: InputDefinition) -> bool:
    """True for a dynamic combo without which the node fails. ComfyUI accepts it without a known option, but
    leaves the input out; a node can only do without a nested or an optional one."""
    return declared.type == DYNAMIC_COMBO and declared.is_required and "." not in declared.name


def _elements(autogrow: InputDefinition) -> Iterator[InputDefinition]:
    """Yields all inputs that the row can have. Only the first ones are required, and none if the template is
    optional."""
    template = as_object(autogrow.options.get("template"))
    element = next(parse_inputs(as_object(template.get("input")), {}), None)
    if element is None:
        return
    least = template.get("min")
    required = least if isinstance(least, int) and element.is_required else 0
    for index, name in enumerate(_names(template)):
        yield replace(element, name=f"{autogrow.name}.{name}", is_required=index < required)


def _names(template: Mapping[str, Any]) -> list[str]:
    names = [as_text(name) or "" for name in as_list(template.get("names"))]
    if names:
        return names[:MOST_ELEMENTS]
    prefix, most = as_text(template.get("prefix")) or "", template.get("max")
    count = min(most, MOST_ELEMENTS) if isinstance(most, int) else 0
    return [f"{prefix}{index}" for index in range(count)]
