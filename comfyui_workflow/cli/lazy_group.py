"""Click group that imports only the command that is called."""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from io import TextIOWrapper
from typing import Any

import click

from comfyui_workflow.errors import WorkflowError


@dataclass(frozen=True, kw_only=True)
class CommandSource:
    module: str
    attribute: str
    summary: str
    """Line in the help of the group, which is printed without importing the command."""


class LazyGroup(click.Group):
    """Group of lazily imported commands. Their `WorkflowError`s become an error message and an exit code."""

    def __init__(self, *arguments: Any, sources: Mapping[str, CommandSource], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sources = sources

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Obeys NO_COLOR. Prints characters that the encoding of stdout or stderr lacks as escapes, such as
        `\\u65e5`: a command must not fail because a name cannot be shown, as in a job of cron."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                with suppress(OSError):  # its file was replaced after the start of Python
                    stream.reconfigure(errors="backslashreplace")
        if os.environ.get("NO_COLOR"):  # rich obeys it, click does not
            options.setdefault("color", False)
        return super().main(*arguments, **options)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.sources)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        source = self.sources.get(cmd_name)
        if source is None:
            return None
        command: click.Command = getattr(import_module(source.module), source.attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, source.summary) for name, source in self.sources.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (WorkflowError, KeyboardInterrupt) as error:
            from comfyui_workflow.cli.exit_codes import conclude_error  # noqa: PLC0415 - slow to import

            ctx.exit(conclude_error(error))
