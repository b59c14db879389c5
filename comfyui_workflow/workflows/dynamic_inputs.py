"""Dynamic inputs of the V3 schema: one declared input that stands for several inputs of a graph.

How it works: a dynamic combo is a choice; its inner inputs are those of the chosen option. An autogrow is a
list; its inner inputs are the elements. In a graph their names are `name.inner`, also for dynamic inputs in
dynamic inputs: `model.images.image0`.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from comfyui_workflow.parsing.untrusted import as_list, as_object, as_text
from comfyui_workflow.workflows.node_definitions import (
    AUTOGROW,
    DYNAMIC_COMBO,
    MATCH_TYPE,
    InputDefinition,
    NodeDefinition,
    parse_inputs,
)

MOST_ELEMENTS = 100
"""ComfyUI's own limit for the elements of an autogrow."""
_LAST_NUMBER = re.compile(r"[0-9]{1,4}$")


def option_keys(combo: InputDefinition) -> list[str]:
    """Returns the choices of a dynamic combo."""
    keys = (as_text(as_object(option).get("key")) for option in _options(combo))
    return [key for key in keys if key is not None]


def default_key(combo: InputDefinition) -> str | None:
    """Returns the option that a new node has: the first one. A browser orders whole numbers before texts."""
    keys = option_keys(combo)
    numbers = sorted((key for key in keys if key.isdecimal()), key=int)
    return next(iter([*numbers, *keys]), None)


def inputs_of_option(combo: InputDefinition, key: object) -> tuple[InputDefinition, ...]:
    """Returns the inner inputs of an option, under their names in a graph."""
    chosen = [each for each in map(as_object, _options(combo)) if each.get("key") == key]
    return tuple(parse_inputs(as_object(chosen[-1].get("inputs")), {}, f"{combo.name}.")) if chosen else ()


def connected_type(declared: InputDefinition) -> str:
    """Returns the type of links to this input. A match type has the types that its template allows."""
    if declared.type != MATCH_TYPE:
        return declared.type
    allowed = as_object(declared.options.get("template")).get("allowed_types")
    return (
        ",".join(filter(None, map(as_text, allowed)))
        if isinstance(allowed, list)
        else as_text(allowed) or "*"
    )


@dataclass(frozen=True)
class Autogrow:
    """The elements of an autogrow input. An element has one input for each input of the template."""

    declared: InputDefinition

    @property
    def least(self) -> int:
        """Number of elements that a node always has."""
        least = self._template.get("min", 1)
        return max(0, min(least, MOST_ELEMENTS)) if isinstance(least, int) else 1

    def element(self, ordinal: int) -> tuple[InputDefinition, ...]:
        """Returns the inputs of one element; none if the input has not so many elements."""
        if not 0 <= ordinal < self._most:
            return ()
        is_required = self.declared.is_required and ordinal < self.least
        return tuple(
            replace(
                each,
                name=f"{self.declared.name}.{self._name(each.name, ordinal)}",
                is_required=is_required and each.is_required,
            )
            for each in self._inputs
        )

    def present(self, names: Collection[str]) -> list[int]:
        """Returns the elements that these names of inputs belong to, in order."""
        prefix = f"{self.declared.name}."
        inner = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
        found = {self._ordinal(name) for name in inner if "." not in name}
        return sorted(ordinal for ordinal in found if ordinal is not None and ordinal < self._most)

    @property
    def _template(self) -> Mapping[str, Any]:
        return as_object(self.declared.options.get("template"))

    @property
    def _inputs(self) -> list[InputDefinition]:
        return list(parse_inputs(as_object(self._template.get("input")), {}))

    @property
    def _names(self) -> list[str] | None:
        names = self._template.get("names")
        return [as_text(name) or "" for name in names] if isinstance(names, list) else None

    @property
    def _most(self) -> int:
        if self._names is not None:
            return min(len(self._names), MOST_ELEMENTS)
        most = self._template.get("max", MOST_ELEMENTS)
        return min(most, MOST_ELEMENTS) if isinstance(most, int) else MOST_ELEMENTS

    def _name(self, key: str, ordinal: int) -> str:
        if self._names is not None:
            return self._names[ordinal]
        prefix = as_text(self._template.get("prefix")) or ""
        return f"{prefix if len(self._inputs) == 1 else key}{ordinal}"

    def _ordinal(self, name: str) -> int | None:
        if self._names is not None:
            return self._names.index(name) if name in self._names else None
        number = _LAST_NUMBER.search(name)
        return int(number[0]) if number else None


def is_dynamic(declared: InputDefinition) -> bool:
    """True if the inner inputs are sent in place of the input, or with it."""
    return declared.type in (DYNAMIC_COMBO, AUTOGROW)


def declared_inputs(definition: NodeDefinition, given: Mapping[str, Any]) -> Iterator[InputDefinition]:
    """Yields the inputs of a class with the inner inputs that the values of a graph node choose."""
    for each in definition.inputs:
        yield each
        yield from inner_inputs(each, given)


def _options(combo: InputDefinition) -> list[Any]:
    return as_list(combo.options.get("options"))


def inner_inputs(declared: InputDefinition, given: Mapping[str, Any]) -> Iterator[InputDefinition]:
    """Yields the inner inputs of a declared input at any depth, as the values of a graph node choose them."""
    if declared.type == DYNAMIC_COMBO:
        inner = inputs_of_option(declared, given.get(declared.name))
    elif declared.type == AUTOGROW:
        grow = Autogrow(declared)
        inner = tuple(each for ordinal in grow.present(given) for each in grow.element(ordinal))
    else:
        return
    for each in inner:
        yield each
        yield from inner_inputs(each, given)
