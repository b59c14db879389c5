"""Graphs in API format: validity, links, output nodes, execution order."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush
from itertools import count
from typing import Any

from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.parsing.untrusted import as_object
from comfyui_workflow.workflows.node_definitions import Definitions

Graph = Mapping[str, Any]
"""A workflow in API format: `{node_id: {"class_type": str, "inputs": {name: value | [node_id, slot]}}}`."""

DEEPEST_NESTING = 100
"""JSON parsers, among them the reader of the stored run, fail at 200 levels or more."""


def check_graph(value: object) -> Graph:
    """Returns the value if it is a graph that is safe to send to ComfyUI.

    A link to a node that does not exist passes ComfyUI's validation if the input is not in the node's schema.
    Such a link then ends ComfyUI's worker thread permanently, so such a graph is never sent.
    Raises: InvalidGraph, naming node and input.
    """
    if not isinstance(value, dict):
        raise InvalidGraph(f"The workflow is not a JSON object but {_kind(value)}")
    if not value:
        raise InvalidGraph("The workflow has no nodes that run")
    foreign_id = next((node_id for node_id in value if not isinstance(node_id, str)), None)
    if foreign_id is not None:
        raise InvalidGraph(f'Node ids must be texts: write "{foreign_id}" instead of {foreign_id!r}')
    check_json(value)
    for node_id, node in value.items():
        _check_node(node_id, node)
    for node_id, name, source, _ in _all_links(value):
        if source not in value:
            raise InvalidGraph(
                f'Node {_label(value, node_id)}: input "{name}" links to node {source}, which does not exist'
            )
    _check_no_cycle(value)
    return value


def execution_order(graph: Graph, output_ids: Iterable[str]) -> list[str]:
    """Returns the ids of the nodes that these outputs need, in the order in which ComfyUI is expected to run
    them: of the nodes that are ready, output nodes come first, then direct sources of output nodes."""
    wanted = set(output_ids)
    needed = _needed(graph, wanted)
    direct_sources = {source for node_id in wanted if node_id in graph for source in sources(graph, node_id)}
    sorter = TopologicalSorter({node_id: sources(graph, node_id) for node_id in needed})
    sorter.prepare()
    position = {node_id: number for number, node_id in enumerate(needed)}
    arrival = count()
    ready: list[tuple[bool, bool, int, str]] = []
    order: list[str] = []
    while sorter.is_active():
        for node_id in sorted(sorter.get_ready(), key=position.__getitem__):
            heappush(ready, (node_id not in wanted, node_id not in direct_sources, next(arrival), node_id))
        chosen = heappop(ready)[-1]
        order.append(chosen)
        sorter.done(chosen)
    return order


def sink_ids(graph: Graph) -> list[str]:
    """Returns the ids of the nodes that no other node uses: a guess at the output nodes that needs no node
    definitions."""
    used = {source for _, _, source, _ in _all_links(graph)}
    return [node_id for node_id in graph if node_id not in used]


def output_ids(graph: Graph, definitions: Definitions) -> list[str]:
    """Returns the ids of the output nodes, by the node definitions of an instance."""
    found = {node_id: definitions.get(node["class_type"]) for node_id, node in graph.items()}
    return [node_id for node_id, definition in found.items() if definition and definition.is_output]


def sources(graph: Graph, node_id: str) -> list[str]:
    return [source for _, source, _ in _links(graph[node_id])]


def closure(start: Iterable[str], following: Callable[[str], Iterable[str]]) -> set[str]:
    """Returns the transitive closure: all keys that can be reached from `start`, including `start`."""
    found: set[str] = set()
    stack = list(start)
    while stack:
        key = stack.pop()
        if key not in found:
            found.add(key)
            stack.extend(following(key))
    return found


def with_replaced_texts(graph: Graph, replace: Callable[[Mapping[str, Any], str, str], str]) -> Graph:
    """Returns the graph with each text in an input value, at any depth, replaced by `replace(node, input
    name, text)`. The same object if nothing changes. Links are kept."""

    def replaced(node: Mapping[str, Any], name: str, value: object) -> object:
        match value:
            case str():
                return replace(node, name, value)
            case [str(), int() | float()]:
                return value
            case list():
                return [replaced(node, name, each) for each in value]
            case dict():
                return {key: replaced(node, name, each) for key, each in value.items()}
        return value

    changed = {
        node_id: {
            **node,
            "inputs": {name: replaced(node, name, value) for name, value in _inputs(node).items()},
        }
        for node_id, node in graph.items()
    }
    return graph if all(changed[key]["inputs"] == _inputs(graph[key]) for key in graph) else changed


def _kind(value: object) -> str:
    kinds = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")


def check_json(value: object) -> None:
    """Checks that the value is valid JSON. Python also reads and writes non-JSON values such as NaN, which
    ComfyUI would receive but other parsers would refuse. Raises: InvalidGraph, naming the invalid value."""
    if _is_nested_deeper(value, DEEPEST_NESTING):
        raise InvalidGraph(f"The workflow is nested too deeply: at most {DEEPEST_NESTING} levels are allowed")
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InvalidGraph("The workflow has a text that is not valid Unicode") from error
    except ValueError as error:
        raise InvalidGraph("The workflow has a number that JSON does not allow (NaN or Infinity)") from error
    except TypeError as error:
        foreign = next(_non_json_values(value), str(error))
        raise InvalidGraph(f"The workflow has a value that JSON does not allow: {foreign}") from error


def _non_json_values(value: object, path: str = "workflow") -> Iterator[str]:
    """Yields a description of each non-JSON value, with its path: `workflow.3.inputs.seed`."""
    match value:
        case dict():
            yield from (f"{path} has the name {name!r}" for name in value if not isinstance(name, str))
            for name, inner in value.items():
                yield from _non_json_values(inner, f"{path}.{name}")
        case list() | tuple():
            for number, inner in enumerate(value):
                yield from _non_json_values(inner, f"{path}.{number}")
        case str() | int() | float() | None:
            pass
        case _:
            kind = type(value)
            yield f"{path} is of the type {kind.__module__}.{kind.__qualname__}".replace("builtins.", "")


def _is_nested_deeper(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_nested_deeper(each, levels - 1) for each in inner)


def _check_node(node_id: object, node: object) -> None:
    if not isinstance(node, dict):
        raise InvalidGraph(f"The workflow is not a graph in API format: node {node_id} is not an object")
    if not isinstance(node.get("class_type"), str) or not node["class_type"]:
        raise InvalidGraph(f'The workflow is not a graph in API format: node {node_id} has no "class_type"')
    if not isinstance(node.get("inputs", {}), dict):
        raise InvalidGraph(f'Node {node_id} ({node["class_type"]}): "inputs" is not an object')


def _check_no_cycle(graph: Graph) -> None:
    try:
        TopologicalSorter({node_id: sources(graph, node_id) for node_id in graph}).prepare()
    except CycleError as error:
        path = " → ".join(_label(graph, node_id) for node_id in error.args[1])
        raise InvalidGraph(f"The workflow has a cycle: {path}") from error


def used_slots(graph: Graph, node_id: str) -> set[float]:
    """Returns the output slots of a node that links of the graph start at."""
    return {slot for _, _, source, slot in _all_links(graph) if source == node_id}


def _all_links(graph: Graph) -> Iterator[tuple[str, str, str, float]]:
    for node_id, node in graph.items():
        for name, source, slot in _links(node):
            yield node_id, name, source, slot


def _links(node: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Yields (input name, id of the source node, slot) for each link. ComfyUI reads a list of two numbers as
    a value, not as a link. A wrapped value (`{"__value__": …}`) may still become a link, depending on the
    type of its input: the preflight handles that case."""
    for name, value in _inputs(node).items():
        match value:
            case [str() as source, int() | float() as slot]:
                yield name, source, slot


def _inputs(node: Mapping[str, Any]) -> Mapping[str, Any]:
    return node.get("inputs") or {}


def _needed(graph: Graph, wanted: set[str]) -> list[str]:
    """Returns `wanted` and all its sources, in the order of the graph."""
    found = closure((node_id for node_id in wanted if node_id in graph), lambda key: sources(graph, key))
    return [node_id for node_id in graph if node_id in found]


def node_title(node: Mapping[str, Any]) -> str | None:
    meta = node.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    return title if isinstance(title, str) and title else None


def with_titles(graph: Graph) -> Graph:
    """Gives each node without a title its class as the title, as the editor does. A newer ComfyUI fails
    without one for a class that it replaces."""
    return {
        node_id: {**node, "_meta": {**as_object(node.get("_meta")), "title": node["class_type"]}}
        if node_title(node) is None
        else node
        for node_id, node in graph.items()
    }


def _label(graph: Graph, node_id: str) -> str:
    return f"{node_id} ({graph[node_id]['class_type']})"
