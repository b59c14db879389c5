"""Bypassed nodes: selection of the input that replaces an output.

How it works: the input with the same slot number if its type is compatible, else the first input of exactly
the wanted type, else the first compatible input.
"""

from collections.abc import Sequence
from typing import TypeVar

from comfyui_workflow.workflows.editor.file import EditorInput

_Item = TypeVar("_Item")


def at_slot(items: Sequence[_Item], slot: int) -> _Item | None:
    return items[slot] if 0 <= slot < len(items) else None


def same_slot(inputs: list[EditorInput], slot: int, given: str, wanted: str) -> EditorInput | None:
    same = at_slot(inputs, slot)
    if wanted == "*":
        return same or at_slot(inputs, 0)
    return same if same and _fits(same.type, given) and _fits(same.type, wanted) else None


def first_fitting(inputs: list[EditorInput], wanted: str) -> EditorInput | None:
    exact = (each for each in inputs if each.type == wanted)
    fitting = (each for each in inputs if _fits(each.type, wanted))
    return next(exact, None) or next(fitting, None)


def _fits(one: str, other: str) -> bool:
    """True if the types are compatible: one is `*`, or both lists of types have a common member."""
    if "*" in (one, other):
        return True
    names = [{name.strip().lower() for name in types.split(",")} for types in (one, other)]
    return not names[0].isdisjoint(names[1])
