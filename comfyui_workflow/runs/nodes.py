"""The nodes of a run: which there will be, and the changes of one of them (`state_machine` says when)."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from comfyui_workflow.runs.events import NodeStep
from comfyui_workflow.runs.model import NodeProgress, NodeStatus
from comfyui_workflow.workflows.graph import Graph, execution_order, node_title


def planned_nodes(graph: Graph, output_ids: Iterable[str]) -> tuple[NodeProgress, ...]:
    """The nodes that these outputs need, pending, in the order ComfyUI is expected to run them."""
    return tuple(_pending(graph, node_id) for node_id in execution_order(graph, output_ids))


def cached(node: NodeProgress, node_ids: frozenset[str]) -> NodeProgress:
    if node.node_id not in node_ids or node.status is NodeStatus.EXECUTED:
        return node
    return replace(node, status=NodeStatus.EXECUTED, progress=100.0, message="Cached")


def started(node: NodeProgress, at: datetime) -> NodeProgress:
    """A node of several parts is started more than once; it may be known to be at work already."""
    if node.status not in (NodeStatus.PENDING, NodeStatus.EXECUTING):
        return node
    return replace(node, status=NodeStatus.EXECUTING, start_time=node.start_time or at, end_time=None)


def stepped(node: NodeProgress, step: NodeStep, ended_at: datetime | None) -> NodeProgress:
    """`ended_at`: when, should it be finished; None where nobody saw that."""
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
    """Whatever became of it."""
    return replace(node, end_time=at) if node.status is NodeStatus.EXECUTING else node


def stopped(node: NodeProgress, message: str) -> NodeProgress:
    """A node of a run that ended is not executing any more, and was not executed."""
    if node.status is not NodeStatus.EXECUTING:
        return node
    return replace(node, status=NodeStatus.PENDING, message=message)


def begun_anew(node: NodeProgress, message: str) -> NodeProgress:
    return replace(
        node, status=NodeStatus.PENDING, progress=0.0, message=message, start_time=None, end_time=None
    )


def _pending(graph: Graph, node_id: str) -> NodeProgress:
    node = graph[node_id]
    return NodeProgress(node_id=node_id, node_type=node["class_type"], title=node_title(node))
