"""Live display of a running run on a terminal: a progress bar, the current step and the nodes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from comfyui_workflow.cli.node_table import node_table
from comfyui_workflow.cli.run_text import clock_time, now_sentence, plain, run_time_s, share_done
from comfyui_workflow.client.documents import ProgressDocument
from comfyui_workflow.runs.status import RunStatus

REFRESHES_PER_SECOND = 8
_BAR_WIDTH = 40
_NOTICES_WHILE_RUNNING = 2
_LINES_AROUND_NODES = 9
_FEWEST_NODE_LINES = 3
_COLOURS = {RunStatus.COMPLETED: "green", RunStatus.FAILED: "red", RunStatus.CANCELLED: "yellow"}


def _now() -> datetime:
    return datetime.now(UTC)


@contextmanager
def drawing(console: Console, render: Callable[[], RenderableType]) -> Iterator[None]:
    """Draws until the block ends; the last frame stays on the screen."""
    with Live(get_renderable=render, console=console, refresh_per_second=REFRESHES_PER_SECOND) as live:
        yield
        live.refresh()


class LiveDisplay:
    """Live display. `show` runs on the thread of the command, `render` on a thread of rich; no lock is needed
    because the shared objects are replaced, never changed."""

    def __init__(self, console: Console, now: Callable[[], datetime] = _now) -> None:
        self._console = console
        self._now = now
        self._progress: ProgressDocument | None = None
        self._trouble: str | None = None

    def show(self, progress: ProgressDocument) -> None:
        self._progress, self._trouble = progress, None

    def show_trouble(self, sentence: str) -> None:
        self._trouble = plain(sentence)

    def render(self) -> RenderableType:
        progress = self._progress
        if progress is None:
            return Text(self._trouble or "")
        lines: list[RenderableType] = [self._overall(progress), self._current_step(progress)]
        most = len(progress.notices) if progress.status.is_finished else _NOTICES_WHILE_RUNNING
        lines += [Text(f"! {plain(notice)}", style="yellow") for notice in progress.notices[-most:]]
        room = max(_FEWEST_NODE_LINES, self._console.height - _LINES_AROUND_NODES)
        nodes = node_table(progress.nodes, self._now(), width=self._console.width, height=room)
        return Group(*lines, Text(), nodes, Text())

    def _overall(self, progress: ProgressDocument) -> RenderableType:
        line = Table.grid(padding=(0, 2))
        line.add_row(
            ProgressBar(total=1.0, completed=share_done(progress), width=_BAR_WIDTH),
            f"{progress.completed_nodes}/{progress.total_nodes} nodes",
            clock_time(run_time_s(progress, self._now())),
        )
        return Group(Text(plain(progress.workflow_name), style="bold"), line)

    def _current_step(self, progress: ProgressDocument) -> Text:
        if self._trouble:
            return Text(self._trouble, style="yellow")
        return Text(now_sentence(progress), style=_COLOURS.get(progress.status, ""))
