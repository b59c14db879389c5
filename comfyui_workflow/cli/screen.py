"""Output with rich: tables on stdout, progress on stderr."""

import sys
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
    width = None if sys.stdout.isatty() else _UNLIMITED_WIDTH
    Console(highlight=False, width=width).print(table)


def can_redraw(console: Console) -> bool:
    """True on a terminal. FORCE_COLOR only asks for colours: rich would draw into the log of a CI job."""
    return console.file.isatty() and not console.is_dumb_terminal


@contextmanager
def display() -> Iterator[Display]:
    """Yields a live display on a terminal, a line display otherwise."""
    console = Console(stderr=True)
    if not can_redraw(console):
        yield PlainDisplay(say)
        return
    live = LiveDisplay(console)
    with drawing(console, live.render):
        yield live
