"""Inputs of a graph set by whoever starts it: `{"6.text": "a cat", "KSampler.steps": 30}`."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.workflows.graph import Graph, node_title
from comfyui_workflow.workflows.node_definitions import Definitions


def with_inputs(graph: Graph, values: Mapping[str, Any], definitions: Definitions) -> dict[str, Any]:
    """The graph with these inputs, each named `<node id or title>.<input>`. An input that the class does not
    declare and the node has not got is refused, since ComfyUI would ignore it without a word.
    Raises: InvalidRequest, naming what there is."""
    changed = {node_id: {**node, "inputs": dict(node.get("inputs") or {})} for node_id, node in graph.items()}
    for name, value in values.items():
        node_id, input_name = _place(graph, name)
        _check_input(changed[node_id], node_id, input_name, definitions)
        changed[node_id]["inputs"][input_name] = {"__value__": value} if isinstance(value, list) else value
    return changed


def _place(graph: Graph, name: str) -> tuple[str, str]:
    """Titles may have dots in them, and names of inputs too: any split that finds a node will do."""
    parts = name.split(".")
    for at in range(len(parts) - 1, 0, -1):
        node, input_name = ".".join(parts[:at]), ".".join(parts[at:])
        found = _nodes_called(graph, node)
        if len(found) > 1:
            raise InvalidRequest(
                f'inputs: "{name}" could be any of the nodes {", ".join(found)}, all called "{node}": '
                "say the id instead"
            )
        if found and input_name:
            return found[0], input_name
    raise InvalidRequest(f'inputs: "{name}" names no node{_offer(graph, name)}')


def _nodes_called(graph: Graph, name: str) -> list[str]:
    """By id; failing that by title; failing that by class."""
    if name in graph:
        return [name]
    titled = [node_id for node_id, node in graph.items() if node_title(node) == name]
    return titled or [node_id for node_id, node in graph.items() if node["class_type"] == name]


def _offer(graph: Graph, name: str) -> str:
    if "." not in name:
        return '; write "<node id or title>.<input>"'
    titles = [node_title(node) or node["class_type"] for node in graph.values()]
    near = get_close_matches(name.rpartition(".")[0], [*graph, *titles], n=3, cutoff=0.5)
    return f"; the nearest are {', '.join(near)}" if near else ""


def _check_input(node: Mapping[str, Any], node_id: str, name: str, definitions: Definitions) -> None:
    definition = definitions.get(node["class_type"])
    if name in node["inputs"] or definition is None or definition.input(name):
        return
    has = ", ".join(each.name for each in definition.inputs) or "none"
    raise InvalidRequest(
        f'inputs: node {node_id} ({node["class_type"]}) has no input "{name}"; it has: {has}'
    )
