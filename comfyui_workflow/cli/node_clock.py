"""How long each node is at work, as seen from here."""

import time
from collections.abc import Callable

from comfyui_workflow.client.documents import NodeDocument, ProgressDocument
from comfyui_workflow.runs.model import NodeStatus


class NodeClock:
    """Times are between two looks, so they are as exact as the looks are frequent. A node that was at work
    before the first look has none."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_s: dict[str, float] = {}
        self._took_s: dict[str, float] = {}
        self._known: frozenset[str] | None = None

    def see(self, progress: ProgressDocument) -> None:
        now_s = self._clock()
        if self._known is None:
            self._known = frozenset(
                node.node_id for node in progress.nodes if node.status is not NodeStatus.PENDING
            )
        for node in progress.nodes:
            if node.node_id not in self._known:
                self._see_node(node, now_s)

    def took_s(self, node_id: str) -> float | None:
        """So far, for a node that is at work. None when it was never seen at work."""
        if node_id in self._took_s:
            return self._took_s[node_id]
        began_s = self._began_s.get(node_id)
        return None if began_s is None else self._clock() - began_s

    def _see_node(self, node: NodeDocument, now_s: float) -> None:
        match node.status:
            case NodeStatus.EXECUTING:
                self._began_s.setdefault(node.node_id, now_s)
                self._took_s.pop(node.node_id, None)
            case NodeStatus.PENDING:  # the prompt was submitted again
                self._began_s.pop(node.node_id, None)
                self._took_s.pop(node.node_id, None)
            case _ if node.node_id in self._began_s:
                self._took_s.setdefault(node.node_id, now_s - self._began_s[node.node_id])
