"""The node classes of ComfyUI-Distributed in a graph, and helpers to read and write graphs."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.workflows.graph import Graph, closure, sources

COLLECTOR = "DistributedCollector"
SEED = "DistributedSeed"
VALUE = "DistributedValue"
MODEL_NAME = "DistributedModelName"
EMPTY_IMAGE = "DistributedEmptyImage"
IMAGE_DIVIDER = "ImageBatchDivider"
AUDIO_DIVIDER = "AudioBatchDivider"
UPSCALER = "UltimateSDUpscaleDistributed"
DISTRIBUTED_CLASSES = frozenset(
    {COLLECTOR, SEED, VALUE, MODEL_NAME, EMPTY_IMAGE, IMAGE_DIVIDER, AUDIO_DIVIDER, UPSCALER}
)

IMAGES_SLOT = 0
AUDIO_SLOT = 1
"""Outputs of a collector."""

TRUE_TEXTS = ("1", "true", "yes", "on")

Link = list[Any]
"""`[node_id, slot]` in an input of a graph in API format."""


def nodes_of(graph: Graph, *classes: str) -> tuple[str, ...]:
    """Returns the ids of the nodes of these classes, in the order of the graph."""
    return tuple(node_id for node_id, node in graph.items() if node["class_type"] in classes)


def distributed_nodes(graph: Graph) -> tuple[str, ...]:
    """Returns the ids of the nodes that send work to several instances. Without any, a workflow runs on the
    master alone."""
    return nodes_of(graph, COLLECTOR, UPSCALER)


def wants_load_balance(graph: Graph) -> bool:
    """Returns whether a collector asks for the one least busy participant. Reads what the plugin reads."""
    collectors = nodes_of(graph, COLLECTOR)
    return any(_is_true(inputs_of(graph, node_id).get("load_balance")) for node_id in collectors)


def _is_true(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in TRUE_TEXTS
    return isinstance(value, int | float) and bool(value)


def inputs_of(graph: Graph, node_id: str) -> Mapping[str, Any]:
    return graph[node_id].get("inputs") or {}


def as_link(value: object) -> Link | None:
    """Returns the value if ComfyUI reads it as a link."""
    match value:
        case [str(node_id), int() | float() as slot]:
            return [node_id, slot]
    return None


def output_of(link: Link) -> tuple[str, int]:
    return link[0], int(link[1])


def used_outputs(graph: Graph) -> set[tuple[str, int]]:
    """Returns the outputs that links start at, as node id and slot."""
    links = (as_link(value) for node_id in graph for value in inputs_of(graph, node_id).values())
    return {output_of(link) for link in links if link is not None}


def upstream(graph: Graph, node_ids: Iterable[str]) -> set[str]:
    """Returns these nodes and all that they need."""
    return closure(node_ids, lambda node_id: sources(graph, node_id))


def downstream(graph: Graph, node_ids: Iterable[str]) -> set[str]:
    """Returns the nodes that need one of these; one of these only if it needs another one."""
    users: dict[str, list[str]] = {node_id: [] for node_id in graph}
    for node_id in graph:
        for source in sources(graph, node_id):
            users[source].append(node_id)
    return closure((user for node_id in node_ids for user in users[node_id]), users.__getitem__)


def pruned(graph: Graph, targets: Iterable[str]) -> dict[str, Any]:
    """Returns the targets and what they need, in the order of the graph."""
    needed = upstream(graph, targets)
    return {node_id: node for node_id, node in graph.items() if node_id in needed}


def relinked(graph: Graph, links: Mapping[tuple[str, int], Link]) -> dict[str, Any]:
    """Returns the graph with other links for these outputs; also where such a link replaces another one."""

    def replaced(value: Any) -> Any:
        while (link := as_link(value)) is not None and output_of(link) in links:
            value = links[output_of(link)]
        return value

    return {
        node_id: with_inputs(
            node, {name: replaced(value) for name, value in inputs_of(graph, node_id).items()}
        )
        for node_id, node in graph.items()
    }


def with_inputs(node: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {**node, "inputs": dict(inputs)}


def new_node(class_type: str, title: str, **inputs: object) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": title}}


def free_ids(graph: Graph, first: int = 1) -> Iterator[str]:
    """Yields ids that no node of the graph has: numbers, as the editor gives them, from `first` on."""
    number = max([first - 1, *(_number(node_id) for node_id in graph)])
    while True:
        number += 1
        yield str(number)


def _number(node_id: str) -> int:
    try:
        return int(node_id)
    except ValueError:
        return 0


def label(graph: Graph, node_id: str) -> str:
    return f"Node {node_id} ({graph[node_id]['class_type']})"


def needed_link(graph: Graph, node_id: str, name: str) -> Link:
    """Returns the link of an input. Raises: InvalidGraph if it is not connected."""
    link = as_link(inputs_of(graph, node_id).get(name))
    if link is None:
        raise InvalidGraph(f'{label(graph, node_id)}: input "{name}" is not connected')
    return link
