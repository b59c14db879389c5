"""Output with rich: tables on stdout, progress on stderr."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table

from comfyui_workflow.cli.follow import Display
from comfyui_workflow.cli.live_display import LiveDisplay, drawing
from comfyui_workflow.cli.messages import say
from comfyui_workflow.cli.plain_display import PlainDisplay

_UNLIMITED_WIDTH = 10_000


def print_table(table: Table) -> None:
    """Prints a table on stdout. Lines are not cut if stdout is not a terminal."""
    console = Console(highlight=False)
    (console if console.is_terminal else Console(highlight=False, width=_UNLIMITED_WIDTH)).print(table)


@contextmanager
def display() -> Iterator[Display]:
    """Yields a live display on a terminal, a line display otherwise."""
    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield PlainDisplay(say)
        return
    live = LiveDisplay(console)
    with drawing(console, live.render):
        yield live
