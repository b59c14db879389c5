"""Node replacements: classes that a ComfyUI no longer has, and what it puts in their place."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from comfyui_workflow.parsing.untrusted import as_list, as_object, as_text


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """The new class of a node, and its inputs: those taken over (new name: old name), and new values. The
    node keeps no other input."""

    new_class: str
    moved: Mapping[str, str]
    values: Mapping[str, Any]

    def missing(self, inputs: Mapping[str, Any]) -> Iterator[str]:
        """Yields the old inputs without which ComfyUI fails with HTTP 500."""
        return (name for name in self.moved.values() if name not in inputs)

    def inputs(self, old: Mapping[str, Any]) -> dict[str, Any]:
        return {new: old[name] for new, name in self.moved.items() if name in old} | dict(self.values)


Replacements = Mapping[str, Replacement]
NO_REPLACEMENTS: Replacements = MappingProxyType({})


def read_replacements(answer: Mapping[str, Any]) -> dict[str, Replacement]:
    """Parses the response to GET /node_replacements: a list for each old class, of which the first entry
    counts."""
    return dict(_read(answer))


def _read(answer: Mapping[str, Any]) -> Iterator[tuple[str, Replacement]]:
    for old_class, raw in answer.items():
        first = as_object(next(iter(as_list(raw)), None))
        new_class = as_text(first.get("new_node_id"))
        if new_class is not None:
            mapping = [as_object(each) for each in as_list(first.get("input_mapping"))]
            yield old_class, _replacement(new_class, mapping)


def _replacement(new_class: str, mapping: list[Mapping[str, Any]]) -> Replacement:
    moved: dict[str, str] = {}
    values: dict[str, Any] = {}
    for entry in mapping:
        new, old = as_text(entry.get("new_id")), as_text(entry.get("old_id"))
        if new is not None and "set_value" in entry:
            values[new] = entry["set_value"]
        elif new is not None and old is not None:
            moved[new] = old
    return Replacement(new_class=new_class, moved=moved, values=values)
