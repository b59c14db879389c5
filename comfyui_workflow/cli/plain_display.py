"""The run as it goes, for logs and pipes: a line whenever something changed."""

from collections.abc import Callable

from comfyui_workflow.cli.run_text import node_name, now_sentence, plain
from comfyui_workflow.client.documents import NodeDocument, ProgressDocument
from comfyui_workflow.runs.status import NodeStatus

_SAYINGS = {NodeStatus.EXECUTING: "running", NodeStatus.EXECUTED: "done", NodeStatus.FAILED: "failed"}


class PlainDisplay:
    """`say` gets one line at a time. Steps are told at each tenth of a node only."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._now = ""
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
            self._show_node(node, progress)  # what is done is told before what has begun since
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
        if node.status in _SAYINGS:
            count = f"{progress.completed_nodes}/{progress.total_nodes}"
            self._say(f"[{count}] {node_name(node)}: {plain(node.message or _SAYINGS[node.status])}")

    def _show_now(self, sentence: str) -> None:
        if sentence != self._now:
            self._now = sentence
            self._say(sentence)
