"""Table of the nodes of a run, cut to the height and width of the terminal."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from comfyui_workflow.cli.run_text import clock_time, node_title, plain
from comfyui_workflow.client.documents import NodeDocument
from comfyui_workflow.runs.status import NodeStatus

_MARKS = {
    NodeStatus.PENDING: ("○", "dim"),
    NodeStatus.EXECUTING: ("●", "cyan"),
    NodeStatus.EXECUTED: ("✓", "green"),
    NodeStatus.FAILED: ("✗", "red"),
}
_GAP = 2
_MARK_WIDTH, _TIME_WIDTH, _BAR_WIDTH = 1, 7, 16
_STEPS_WIDTH = 13
_WIDE = 76
"""Minimum width for a progress bar beside the steps of a node."""
_LONGEST_CLASS, _SHORTEST_CLASS, _SHORTEST_TITLE = 32, 12, 6


def node_table(nodes: tuple[NodeDocument, ...], now: datetime, *, width: int, height: int) -> RenderableType:
    """Returns the table. `now` is the end of the time taken by a running node."""
    before, shown, after = visible_nodes(nodes, height)
    widths = _Widths.fitting(shown, width)
    table = Table.grid(padding=(0, _GAP))
    for node in shown:
        mark, style = _MARKS[node.status]
        table.add_row(
            Text(mark, style=style),
            _cut(
                plain(node.node_type), widths.node_class, "dim" if node.status is NodeStatus.PENDING else ""
            ),
            _cut(node_title(node), widths.title, "dim"),
            _cut(_time_taken(node, now), _TIME_WIDTH, "dim"),
            _activity(node, widths),
        )
    return _framed(table, before, after)


@dataclass(frozen=True, kw_only=True)
class _Widths:
    """Widths of the columns. The class gets its space first, then the activity, then the title."""

    node_class: int
    title: int
    activity: int
    has_bar: bool

    @classmethod
    def fitting(cls, nodes: tuple[NodeDocument, ...], width: int) -> Self:
        has_bar = width >= _WIDE
        least_activity = _STEPS_WIDTH + (_BAR_WIDTH + 1 if has_bar else 0)
        free = width - _MARK_WIDTH - _TIME_WIDTH - 4 * _GAP - least_activity
        longest_class = max((cell_len(plain(node.node_type)) for node in nodes), default=0)
        node_class = min(longest_class, _LONGEST_CLASS, max(_SHORTEST_CLASS, free))
        longest_title = max((cell_len(node_title(node)) for node in nodes), default=0)
        title = min(longest_title, free - node_class)
        title = 0 if title < min(_SHORTEST_TITLE, longest_title) else title
        return cls(
            node_class=node_class,
            title=title,
            activity=least_activity + max(0, free - node_class - title),
            has_bar=has_bar,
        )


def visible_nodes(nodes: tuple[NodeDocument, ...], room: int) -> tuple[int, tuple[NodeDocument, ...], int]:
    """Returns as many nodes around the running one as fit, and the number of hidden nodes before and
    after."""
    if len(nodes) <= room:
        return 0, nodes, 0
    room = max(1, room - 2)
    current = next(
        (i for i, node in enumerate(nodes) if node.status is not NodeStatus.EXECUTED), len(nodes) - 1
    )
    first = min(max(0, current - room // 2), len(nodes) - room)
    return first, nodes[first : first + room], len(nodes) - first - room


def _framed(table: Table, before: int, after: int) -> RenderableType:
    """Adds lines with the number of hidden nodes above and below."""
    above, below = ([Text(f"… {count} more", style="dim")] if count else [] for count in (before, after))
    return Group(*above, table, *below)


def _cut(content: str, width: int, style: str) -> Text:
    text = Text(content if width else "", style=style, no_wrap=True)
    text.truncate(max(1, width), overflow="ellipsis")
    return text


def _time_taken(node: NodeDocument, now: datetime) -> str:
    """Returns the duration of a node; empty if its start or end is unknown."""
    until = now if node.status is NodeStatus.EXECUTING else node.end_time
    if node.start_time is None or until is None:
        return ""
    took_s = max(0.0, (until - node.start_time).total_seconds())
    return f"{took_s:.1f} s" if took_s < 1000 else clock_time(took_s)


def _activity(node: NodeDocument, widths: _Widths) -> RenderableType:
    message = plain(node.message or "")
    if node.status is NodeStatus.EXECUTING and message and widths.has_bar:
        cell = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=100, completed=node.progress, width=_BAR_WIDTH)
        cell.add_row(bar, _cut(message, widths.activity - _BAR_WIDTH - 1, ""))
        return cell
    return _cut(message, widths.activity, "red" if node.status is NodeStatus.FAILED else "dim")
