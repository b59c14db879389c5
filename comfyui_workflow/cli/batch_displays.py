"""Displays of a running batch: a progress bar and the running runs on a terminal, otherwise a line per
change."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from comfyui_workflow.cli.batch_follow import BatchDisplay, BatchView, RunNames
from comfyui_workflow.cli.batch_text import (
    COLOURS,
    cost_sentence,
    counts_sentence,
    ended,
    failure_lines,
    format_inputs,
    format_running,
)
from comfyui_workflow.cli.live_display import drawing
from comfyui_workflow.cli.messages import say
from comfyui_workflow.cli.run_text import clock_time, plain
from comfyui_workflow.cli.screen import can_redraw
from comfyui_workflow.client.batch_documents import BatchFailureDocument, BatchProgressDocument

_BAR_WIDTH = 40
_LINES_AROUND_RUNS = 9
_FEWEST_RUN_LINES = 3
_MOST_FAILURES = 3


@contextmanager
def batch_display(names: RunNames) -> Iterator[BatchDisplay]:
    """Yields a live display on a terminal, a line display otherwise."""
    console = Console(stderr=True)
    if not can_redraw(console):
        yield PlainBatchDisplay(say, names)
        return
    display = LiveBatchDisplay(console, names)
    with drawing(console, display.render):
        yield display


class LiveBatchDisplay:
    """Live display. `show` runs on the thread of the command, `render` on a thread of rich; no lock is needed
    because the shared objects are replaced, never changed."""

    def __init__(
        self, console: Console, names: RunNames, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._names = names
        self._clock = clock
        self._view: BatchView | None = None
        self._trouble: str | None = None
        self._began_s = 0.0

    def show(self, view: BatchView) -> None:
        if self._view is None:
            age = datetime.now(UTC) - view.progress.queue_time
            self._began_s = self._clock() - max(0.0, age.total_seconds())
        self._view, self._trouble = view, None

    def show_trouble(self, sentence: str) -> None:
        self._trouble = plain(sentence)

    def render(self) -> RenderableType:
        view = self._view
        if view is None:
            return Text(self._trouble or "")
        return Group(
            Text(plain(view.progress.batch_name), style="bold"),
            self._overall(view.progress),
            self._state_line(view),
            *self._failures(view.progress),
            *self._running(view),
            Text(),
        )

    def _overall(self, progress: BatchProgressDocument) -> RenderableType:
        elapsed_s = self._clock() - self._began_s
        if progress.end_time:
            elapsed_s = (progress.end_time - progress.queue_time) / timedelta(seconds=1)
        line = Table.grid(padding=(0, 2))
        line.add_row(
            ProgressBar(total=100, completed=_percent(progress), width=_BAR_WIDTH),
            f"{ended(progress)}/{progress.total} runs",
            clock_time(elapsed_s),
            cost_sentence(progress),
        )
        return line

    def _state_line(self, view: BatchView) -> Text:
        if self._trouble:
            return _line(self._trouble, "yellow")
        colour = COLOURS.get(view.status, "")
        waiting = f". {plain(view.waiting)}" if view.waiting else ""
        return _line(f"{counts_sentence(view.progress)}{waiting}", colour)

    def _failures(self, progress: BatchProgressDocument) -> list[RenderableType]:
        failures = list(failure_lines(progress, self._names))
        return [_line(f"! {sentence}", "red") for sentence in failures[-_MOST_FAILURES:]]

    def _running(self, view: BatchView) -> list[RenderableType]:
        room = max(_FEWEST_RUN_LINES, self._console.height - _LINES_AROUND_RUNS - _MOST_FAILURES)
        runs = view.running[:room]
        lines = [
            (
                f"run {self._names.number(run.workflow_id)}",
                *format_running(run),
                format_inputs(self._names.inputs(run.workflow_id)),
            )
            for run in runs
        ]
        return [Text(), *_aligned(lines, self._console.width // 4)] if lines else []


class PlainBatchDisplay:
    """Line display. Calls `say` with a line when a run has ended or the number of running runs has
    changed."""

    def __init__(self, say: Callable[[str], None], names: RunNames) -> None:
        self._say = say
        self._names = names
        self._last_line = ""
        self._reported: set[str] = set()
        self._trouble = False

    def show(self, view: BatchView) -> None:
        self._trouble = False
        progress = view.progress
        for failure in progress.failures:
            self._report_failure(failure)
        waiting = f". {plain(view.waiting)}" if view.waiting else ""
        self._report(f"[{ended(progress)}/{progress.total}] {counts_sentence(progress)}{waiting}")

    def show_trouble(self, sentence: str) -> None:
        if not self._trouble:
            self._say(plain(sentence))
        self._trouble = True

    def _report_failure(self, failure: BatchFailureDocument) -> None:
        """Reports the first run that failed for a reason; others with that reason are listed at the end."""
        reason = plain(failure.error_message or "failed")
        if reason not in self._reported:
            self._reported.add(reason)
            self._say(f"! run {self._names.number(failure.workflow_id)}: {reason}")

    def _report(self, line: str) -> None:
        if line != self._last_line:
            self._last_line = line
            self._say(line)


def _percent(progress: BatchProgressDocument) -> float:
    """Returns the progress; 100 for a finished batch, even if runs failed before they reached 100 %."""
    return 100.0 if progress.status.is_finished else progress.progress_percent


def _line(text: str, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _aligned(lines: Sequence[Sequence[str]], widest: int) -> Iterator[Text]:
    """Yields lines with aligned columns of at most `widest` cells; lines are cut at the width of the
    screen."""
    widths = [min(widest, max(map(cell_len, column))) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (
            cell if cell_len(cell) > width else set_cell_size(cell, width)
            for cell, width in zip(line, widths, strict=True)
        )
        yield _line("  ".join(cells), "")
