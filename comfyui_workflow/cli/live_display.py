"""The run as it goes, on a terminal: one bar for all of it, a line for each node, what happens now."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from comfyui_workflow.cli.documents import NodeDocument, ProgressDocument
from comfyui_workflow.cli.node_clock import NodeClock
from comfyui_workflow.cli.words import clock_time, node_title, now_sentence, plain, run_time_s, share_done
from comfyui_workflow.runs.model import NodeStatus, RunStatus

REFRESHES_PER_SECOND = 8
_BAR_WIDTH = 40
_NODE_BAR_WIDTH = 16
_LINES_AROUND_NODES = 9
_FEWEST_NODE_LINES = 3
_MARKS = {
    NodeStatus.PENDING: ("○", "dim"),
    NodeStatus.EXECUTING: ("●", "cyan"),
    NodeStatus.EXECUTED: ("✓", "green"),
    NodeStatus.FAILED: ("✗", "red"),
}
_COLOURS = {RunStatus.COMPLETED: "green", RunStatus.FAILED: "red", RunStatus.CANCELLED: "yellow"}


@contextmanager
def live_display(console: Console) -> Iterator["LiveDisplay"]:
    """Draws until the block ends; the last picture stays."""
    display = LiveDisplay(console)
    with Live(
        get_renderable=display.render, console=console, refresh_per_second=REFRESHES_PER_SECOND
    ) as live:
        yield display
        live.refresh()


class LiveDisplay:
    """`show` is called by the command, `render` by rich's own thread; what they share is replaced whole."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._nodes = NodeClock(clock)
        self._progress: ProgressDocument | None = None
        self._trouble: str | None = None
        self._began_s = 0.0

    def show(self, progress: ProgressDocument) -> None:
        if self._progress is None:
            age = datetime.now(UTC) - progress.queue_time  # it may have begun long before we look
            self._began_s = self._clock() - max(0.0, age.total_seconds())
        self._nodes.see(progress)
        self._progress, self._trouble = progress, None

    def show_trouble(self, sentence: str) -> None:
        self._trouble = plain(sentence)

    def render(self) -> RenderableType:
        progress = self._progress
        if progress is None:
            return Text(self._trouble or "")
        lines: list[RenderableType] = [self._overall(progress), self._now(progress)]
        lines += [Text(f"! {plain(notice)}", style="yellow") for notice in progress.notices[-2:]]
        return Group(*lines, Text(), self._node_table(progress), Text())

    def _overall(self, progress: ProgressDocument) -> RenderableType:
        elapsed_s = run_time_s(progress) if progress.end_time else self._clock() - self._began_s
        line = Table.grid(padding=(0, 2))
        line.add_row(
            ProgressBar(total=1.0, completed=share_done(progress), width=_BAR_WIDTH),
            f"{progress.completed_nodes}/{progress.total_nodes} nodes",
            clock_time(elapsed_s),
        )
        return Group(Text(plain(progress.workflow_name), style="bold"), line)

    def _now(self, progress: ProgressDocument) -> Text:
        if self._trouble:
            return Text(self._trouble, style="yellow")
        return Text(now_sentence(progress), style=_COLOURS.get(progress.status, ""))

    def _node_table(self, progress: ProgressDocument) -> RenderableType:
        room = max(_FEWEST_NODE_LINES, self._console.height - _LINES_AROUND_NODES)
        before, shown, after = nodes_in_sight(progress.nodes, room)
        table = Table.grid(padding=(0, 2))
        for _ in range(5):
            table.add_column(no_wrap=True, overflow="ellipsis")
        if before:
            table.add_row("", Text(f"… {before} nodes before", style="dim"))
        for node in shown:
            table.add_row(*self._node_cells(node))
        if after:
            table.add_row("", Text(f"… {after} nodes to come", style="dim"))
        return table

    def _node_cells(self, node: NodeDocument) -> tuple[RenderableType, ...]:
        mark, style = _MARKS[node.status]
        dimmed = "dim" if node.status is NodeStatus.PENDING else ""
        took_s = self._nodes.took_s(node.node_id)
        return (
            Text(mark, style=style),
            Text(plain(node.node_type), style=dimmed),
            Text(node_title(node), style="dim"),
            Text("" if took_s is None else f"{took_s:.1f} s", style="dim", justify="right"),
            _node_activity(node),
        )


def nodes_in_sight(nodes: tuple[NodeDocument, ...], room: int) -> tuple[int, tuple[NodeDocument, ...], int]:
    """The nodes around the one at work, as many as have room, and how many are left out before and after."""
    if len(nodes) <= room:
        return 0, nodes, 0
    room = max(1, room - 2)
    at_work = next(
        (i for i, node in enumerate(nodes) if node.status is not NodeStatus.EXECUTED), len(nodes) - 1
    )
    first = min(max(0, at_work - room // 2), len(nodes) - room)
    return first, nodes[first : first + room], len(nodes) - first - room


def _node_activity(node: NodeDocument) -> RenderableType:
    if node.status is NodeStatus.EXECUTING and node.message:
        cell = Table.grid(padding=(0, 1))
        cell.add_row(
            ProgressBar(total=100, completed=node.progress, width=_NODE_BAR_WIDTH), plain(node.message)
        )
        return cell
    return Text(plain(node.message or ""), style="red" if node.status is NodeStatus.FAILED else "dim")
