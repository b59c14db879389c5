"""The graph of one participant, with the small nodes of ComfyUI-Distributed replaced by what plain ComfyUI has."""

from collections.abc import Set
from typing import Any

from comfyui_workflow.distributed.nodes import SEED, as_link, inputs_of, label, nodes_of, relinked
from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.workflows.graph import Graph


def resolved(graph: Graph, seed_index: int, installed: Set[str] = frozenset()) -> dict[str, Any]:
    """Returns the graph for the participant with this seed index. Raises: InvalidGraph."""
    values: dict[tuple[str, int], Any] = {}
    for node_id in nodes_of(graph, SEED):
        seed = inputs_of(graph, node_id).get("seed", 0)
        if seed_index and (as_link(seed) or not isinstance(seed, int)):
            raise InvalidGraph(f"{label(graph, node_id)}: give its seed as a number, not from another node")
        values[node_id, 0] = seed + seed_index if seed_index else seed
    return relinked({key: node for key, node in graph.items() if node["class_type"] != SEED}, values)
