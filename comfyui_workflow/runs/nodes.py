"""The nodes of a run: planning them, and the state changes of a single node. `state_machine` calls these."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from comfyui_workflow.runs.events import NodeStep
from comfyui_workflow.runs.model import NodeProgress, NodeStatus
from comfyui_workflow.workflows.graph import Graph, execution_order, node_title


def planned_nodes(graph: Graph, output_ids: Iterable[str]) -> tuple[NodeProgress, ...]:
    """The nodes that these outputs need, all pending, in the expected execution order of ComfyUI."""
    return tuple(_pending(graph, node_id) for node_id in execution_order(graph, output_ids))


def cached(node: NodeProgress, node_ids: frozenset[str]) -> NodeProgress:
    if node.node_id not in node_ids or node.status is NodeStatus.EXECUTED:
        return node
    return replace(node, status=NodeStatus.EXECUTED, progress=100.0, message="Cached")


def started(node: NodeProgress, at: datetime) -> NodeProgress:
    """A node that consists of several parts is started more than once, so it may already be executing."""
    if node.status not in (NodeStatus.PENDING, NodeStatus.EXECUTING):
        return node
    return replace(node, status=NodeStatus.EXECUTING, start_time=node.start_time or at, end_time=None)


def stepped(node: NodeProgress, step: NodeStep, ended_at: datetime | None) -> NodeProgress:
    """Applies a progress step. `ended_at` is the end time if the step finishes the node; None if the end was
    not observed."""
    if node.status in (NodeStatus.EXECUTED, NodeStatus.FAILED):
        return node
    if step.is_finished:
        return executed(node, ended_at if node.status is NodeStatus.EXECUTING else None)
    share = min(1.0, max(0.0, step.value / step.maximum)) if step.maximum > 0 else 0.0
    return replace(
        node,
        status=NodeStatus.EXECUTING,
        progress=max(node.progress, round(100 * share, 1)),
        message=f"Step {step.value:g}/{step.maximum:g}" if step.maximum > 1 else None,
        end_time=None,
    )


def executed(node: NodeProgress, ended_at: datetime | None = None) -> NodeProgress:
    if node.status is NodeStatus.EXECUTED:
        return node
    return replace(
        node,
        status=NodeStatus.EXECUTED,
        progress=100.0,
        message=None,
        end_time=ended_at or node.end_time,
    )


def ended_with_prompt(node: NodeProgress, at: datetime) -> NodeProgress:
    """Sets the end time of an executing node, whatever its result is."""
    return replace(node, end_time=at) if node.status is NodeStatus.EXECUTING else node


def stopped(node: NodeProgress, message: str) -> NodeProgress:
    """When a run ends, an executing node becomes pending again: it was not executed."""
    if node.status is not NodeStatus.EXECUTING:
        return node
    return replace(node, status=NodeStatus.PENDING, message=message)


def restarted(node: NodeProgress, message: str) -> NodeProgress:
    """Resets a node for another execution."""
    return replace(
        node, status=NodeStatus.PENDING, progress=0.0, message=message, start_time=None, end_time=None
    )


def _pending(graph: Graph, node_id: str) -> NodeProgress:
    node = graph[node_id]
    return NodeProgress(node_id=node_id, node_type=node["class_type"], title=node_title(node))
