"""Overrides of inputs in a request: `{"6.text": "a cat", "KSampler.steps": 30}`."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from comfyui_workflow.errors import InvalidInputs, InvalidRequest
from comfyui_workflow.workflows.dynamic_inputs import declared_inputs
from comfyui_workflow.workflows.graph import Graph, node_title
from comfyui_workflow.workflows.node_definitions import Definitions, InputDefinition
from comfyui_workflow.workflows.set_values import as_declared


def with_inputs(graph: Graph, values: Mapping[str, Any], definitions: Definitions) -> dict[str, Any]:
    """Returns the graph with these inputs set; the keys are `<node id or title>.<input>`. Values get the type
    that the class declares.

    An input that neither the class declares nor the node has is refused: ComfyUI would silently ignore it.
    Raises: InvalidRequest, listing the nodes or inputs that exist, or with a value that has no such type.
    """
    changed = {node_id: {**node, "inputs": dict(node.get("inputs") or {})} for node_id, node in graph.items()}
    for name, value in values.items():
        node_id, input_name = _find_input(graph, name)
        node = changed[node_id]
        declared = _declared(node, node_id, input_name, definitions)
        with _naming_the_node(node, node_id):
            typed = value if declared is None else as_declared(declared, value)
        node["inputs"][input_name] = {"__value__": typed} if isinstance(typed, list) else typed
    return changed


def inputs_named(graph: Graph, names: Iterable[str]) -> frozenset[tuple[str, str]]:
    """Returns (node id, input name) of the inputs that these names set. Raises: InvalidRequest for a name
    that matches no node, or several."""
    return frozenset(_find_input(graph, name) for name in names)


def refuse_repeated(graph: Graph, names: Iterable[str]) -> None:
    """Raises: InvalidRequest if two names are the same input, by the id and by the title of its node."""
    named = dict[tuple[str, str], str]()
    for name in names:
        before = named.setdefault(_find_input(graph, name), name)
        if before != name:
            raise InvalidRequest(f'inputs: "{before}" and "{name}" are the same input: leave out one of them')


def _find_input(graph: Graph, name: str) -> tuple[str, str]:
    """Splits the name into (node id, input name). Titles and input names can contain dots, so every split is
    tried, the longest node name first. Raises: InvalidRequest."""
    parts = name.split(".")
    for at in range(len(parts) - 1, 0, -1):
        node, input_name = ".".join(parts[:at]), ".".join(parts[at:])
        found = _nodes_named(graph, node)
        if len(found) > 1:
            raise InvalidRequest(
                f'inputs: "{name}" could be any of the nodes {", ".join(found)}, all called "{node}": '
                "use the node id instead"
            )
        if found and input_name:
            return found[0], input_name
    raise InvalidRequest(f'inputs: "{name}" names no node{_suggestion(graph, name)}')


def _nodes_named(graph: Graph, name: str) -> list[str]:
    """Returns the ids of the nodes with this id, or else this title, or else this class."""
    if name in graph:
        return [name]
    titled = [node_id for node_id, node in graph.items() if node_title(node) == name]
    return titled or [node_id for node_id, node in graph.items() if node["class_type"] == name]


def _suggestion(graph: Graph, name: str) -> str:
    if "." not in name:
        return '; write "<node id or title>.<input>"'
    titles = [node_title(node) or node["class_type"] for node in graph.values()]
    similar = get_close_matches(name.rpartition(".")[0], [*graph, *titles], n=3, cutoff=0.5)
    return f"; the nearest are {', '.join(similar)}" if similar else ""


def _declared(
    node: Mapping[str, Any], node_id: str, name: str, definitions: Definitions
) -> InputDefinition | None:
    """Returns None if the class is unknown, or only the node has the input. Raises: InvalidRequest."""
    definition = definitions.get(node["class_type"])
    if definition is None:
        return None
    declared = next((each for each in declared_inputs(definition, node["inputs"]) if each.name == name), None)
    if declared is not None or name in node["inputs"]:
        return declared
    has = ", ".join(each.name for each in definition.inputs) or "none"
    raise InvalidRequest(
        f'inputs: node {node_id} ({node["class_type"]}) has no input "{name}"; it has: {has}'
    )


@contextmanager
def _naming_the_node(node: Mapping[str, Any], node_id: str) -> Iterator[None]:
    try:
        yield
    except InvalidInputs as error:
        refusal = InvalidInputs(f"inputs: node {node_id} ({node['class_type']}): {error}")
        refusal.node_id = node_id
        raise refusal from error
