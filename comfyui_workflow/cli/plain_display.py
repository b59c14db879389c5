"""Line display of a running run, for logs and pipes: one line per change."""

from collections.abc import Callable

from comfyui_workflow.cli.run_text import node_name, now_sentence, plain
from comfyui_workflow.client.documents import NodeDocument, ProgressDocument
from comfyui_workflow.runs.status import NodeStatus

_STATUS_WORDS = {NodeStatus.EXECUTING: "running", NodeStatus.EXECUTED: "done", NodeStatus.FAILED: "failed"}


class PlainDisplay:
    """Calls `say` with one line per change. The steps of a node are reported at every 10 %."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._last_sentence = ""
        self._trouble = False
        self._nodes: dict[str, tuple[NodeStatus, int]] = {}
        self._notices = 0

    def show(self, progress: ProgressDocument) -> None:
        self._trouble = False
        for notice in progress.notices[self._notices :]:
            self._say(f"! {plain(notice)}")
        self._notices = len(progress.notices)
        if not progress.status.is_finished:
            self._show_now(now_sentence(progress))
        for node in sorted(progress.nodes, key=lambda node: node.status is NodeStatus.EXECUTING):
            self._show_node(node, progress)  # finished nodes first, then the running one
        if progress.status.is_finished:
            self._show_now(now_sentence(progress))

    def show_trouble(self, sentence: str) -> None:
        if not self._trouble:
            self._say(plain(sentence))
        self._trouble = True

    def _show_node(self, node: NodeDocument, progress: ProgressDocument) -> None:
        state = (node.status, int(node.progress // 10))
        if state == self._nodes.get(node.node_id, (NodeStatus.PENDING, 0)):
            return
        self._nodes[node.node_id] = state
        if node.status in _STATUS_WORDS:
            count = f"{progress.completed_nodes}/{progress.total_nodes}"
            self._say(f"[{count}] {node_name(node)}: {plain(node.message or _STATUS_WORDS[node.status])}")

    def _show_now(self, sentence: str) -> None:
        if sentence != self._last_sentence:
            self._last_sentence = sentence
            self._say(sentence)
