"""Files that the nodes of a graph save: classes that never overwrite a file, and the check that a file was
made by a given graph."""

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from comfyui_workflow.workflows.graph import Graph

NUMBERING_CLASSES = frozenset(
    {
        "SaveImage",
        "SaveImageAdvanced",
        "SaveImageWebsocket",
        "PreviewImage",
        "MaskPreview",
        "SaveAnimatedWEBP",
        "SaveAnimatedPNG",
        "SaveWEBM",
        "SaveVideo",
        "SaveAudio",
        "SaveAudioMP3",
        "SaveAudioOpus",
        "PreviewAudio",
        "SaveLatent",
        "SaveGLB",
        "SaveSVGNode",
        "CheckpointSave",
        "ModelSave",
        "CLIPSave",
        "VAESave",
        "LoraSave",
        "PreviewAny",
        "VHS_VideoCombine",
    }
)
"""Output node classes that never overwrite an existing file (they number the names), or that save no file."""

SAVED_AGAIN = "comfyui_workflow_saved_again"
"""Input that a node gets so that it runs again. ComfyUI ignores inputs that a class does not have, but its
cache counts them."""


def saved_again(graph: Graph, node_ids: Iterable[str], value: str) -> Graph:
    """Returns the graph in which ComfyUI executes these nodes although their results are in its cache. All
    other nodes stay cached. `value` was never used before."""
    marked = {
        node_id: {**graph[node_id], "inputs": {**graph[node_id]["inputs"], SAVED_AGAIN: value}}
        for node_id in node_ids
        if node_id in graph
    }
    return {**graph, **marked} if marked else graph


def was_saved_by_node(
    graph: Graph, node_id: str, found: Mapping[str, Any], given: frozenset[str]
) -> bool | None:
    """True if a file that contains the graph `found` was made by this node, or by one with the same class,
    inputs and sources. None if that cannot be decided.

    `given`: names of input files that can have another name on the instance.
    """
    node = graph.get(node_id)
    if node is None:
        return None
    own = _recipes(graph, given)(node_id)
    recipe_of = _recipes(found, given)
    others = [
        recipe_of(other_id)
        for other_id, other in found.items()
        if isinstance(other, dict) and other.get("class_type") == node["class_type"]
    ]
    if own is None or not others or None in others:
        return None
    return any(_is_same(own, other) for other in others)


def _recipes(graph: Mapping[str, Any], given: frozenset[str]) -> Callable[[str], Any]:
    """Returns a function that maps a node id to the node's recipe: its class and its inputs, with each link
    replaced by the recipe of the source node. Ids can differ between equivalent graphs, so the recipe
    contains none. The function returns None if the value is not a valid graph."""

    @cache
    def recipe(node_id: str) -> Any:
        node = graph[node_id]
        inputs = {name: value_of(value) for name, value in node["inputs"].items() if name != SAVED_AGAIN}
        return (node["class_type"], tuple(sorted(inputs.items(), key=lambda item: item[0])))

    def value_of(value: Any) -> Any:
        match value:
            case [str() as source, int() as slot] if source in graph:
                return (recipe(source), slot)
            case {"__value__": inner}:
                return _Literal(inner)
            case str() if value.removesuffix(" [input]") in given:
                return _Literal(None, is_any=True)
        return _Literal(value)

    def recipe_or_none(node_id: str) -> Any:
        try:
            return recipe(node_id)
        except (KeyError, TypeError, AttributeError, RecursionError):
            return None

    return recipe_or_none


class _Literal:
    """Value of a widget. ComfyUI converts texts to numbers, and floats to integers: such values are equal."""

    def __init__(self, value: Any, *, is_any: bool = False) -> None:
        self.value = value
        self.is_any = is_any

    def is_same(self, other: "_Literal") -> bool:
        if self.is_any or other.is_any or self.value == other.value:
            return True
        own, theirs = _number(self.value), _number(other.value)
        if own is None or theirs is None:
            return str(self.value) == str(other.value)
        return own == theirs or int(own) == int(theirs)


def _number(value: Any) -> float | int | None:
    if isinstance(value, bool | int | float):
        return value if value == value and abs(value) != float("inf") else None  # noqa: PLR0124 - no NaN
    try:
        return int(value)
    except (ValueError, TypeError):
        pass
    try:
        number = float(value)
    except (ValueError, TypeError):
        return None
    return number if number == number and abs(number) != float("inf") else None  # noqa: PLR0124


def _is_same(own: Any, other: Any) -> bool:
    """Compares two recipes, literal by literal. An input that only one of them has is a difference."""
    stack = [(own, other)]
    seen: set[tuple[int, int]] = set()
    while stack:
        one, two = stack.pop()
        if (id(one), id(two)) in seen:
            continue
        seen.add((id(one), id(two)))
        if isinstance(one, _Literal) or isinstance(two, _Literal):
            if not (isinstance(one, _Literal) and isinstance(two, _Literal) and one.is_same(two)):
                return False
        elif isinstance(one, tuple) and isinstance(two, tuple):
            if len(one) != len(two):
                return False
            stack.extend(zip(one, two, strict=True))
        elif one != two:
            return False
    return True
