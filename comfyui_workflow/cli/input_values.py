"""Options `--set` and `--seed-mode`: inputs of a workflow from the command line."""

import json
import re
from collections.abc import Iterable
from math import isinf
from pathlib import Path
from typing import Any, NoReturn

import click

from comfyui_workflow.cli.messages import say
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.parsing.text_encoding import WESTERN, decoded
from comfyui_workflow.workflows.seed_mode import SeedMode

LARGEST_FILE_BYTES = 16 * 1024 * 1024
_NAME_AND_VALUE = re.compile(r"([^.]*\.[^=]*)=(.*)", re.DOTALL)
"""A title may contain an equals sign, so the name must contain a dot before the `=`."""
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")

set_option = click.option(
    "--set",
    "settings",
    metavar="NODE.INPUT=VALUE",
    multiple=True,
    help="Set an input of the node with this id or title. VALUE is JSON (3.steps=30), else text; "
    "6.text=@prompt.txt reads a file. Can be repeated.",
)
seed_mode_option = click.option(
    "--seed-mode",
    type=click.Choice([mode.value for mode in SeedMode]),
    default=SeedMode.SAVED.value,
    show_default=True,
    help="Choose the seeds: as saved in the file, as the seed control of each node says, or all random.",
)


def read_values(settings: Iterable[str]) -> dict[str, Any]:
    """Returns the values by input name; the last value of an input wins. Raises: InvalidRequest."""
    return dict(map(_read_setting, settings))


def name_and_value(option: str, setting: str) -> tuple[str, str]:
    """Splits a setting; `option` is for the error. Raises: InvalidRequest."""
    parts = _NAME_AND_VALUE.fullmatch(setting)
    if parts is None:
        raise InvalidRequest(f'{option} {setting} must be "<node id or title>.<input>=VALUE"')
    name, value = parts.groups()
    return name, value


def text_of_file(option: str, path: str) -> str:
    """Reads a text file, without the line end after the last line. Raises: InvalidRequest, which starts with
    `option`."""
    return text_of_content(option, path, content_of_file(option, path))


def content_of_file(option: str, path: Path | str) -> bytes:
    """Raises: InvalidRequest."""
    try:
        with Path(path).expanduser().open("rb") as file:
            content = file.read(LARGEST_FILE_BYTES + 1)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidRequest(f"{option}: {path} cannot be read: {reason}") from error
    if len(content) > LARGEST_FILE_BYTES:
        raise InvalidRequest(f"{option}: {path} is too large")
    return content


def text_of_content(option: str, path: Path | str, content: bytes) -> str:
    """Decodes a text. Tells on stderr if the encoding is a guess. Raises: InvalidRequest."""
    try:
        text, encoding = decoded(content)
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{option}: {path} is not text in UTF-8, UTF-16 or Windows-1252: save it as UTF-8"
        ) from error
    if encoding == WESTERN:
        say(f"{path} is not UTF-8: it is read as Windows-1252. If letters are wrong, save it as UTF-8.")
    return text.replace("\r\n", "\n").removesuffix("\n")


def read_json(text: str) -> Any:
    """Raises: ValueError, RecursionError."""
    return json.loads(text, parse_constant=_refuse, parse_float=_finite)


def exact_number(word: str) -> int | float | None:
    """Returns the number if it is written back in the same way. None for 1.50, 007 or 12E45: the input may be
    a text, which would lose characters; the server converts it if the input is a number."""
    if not _NUMBER.fullmatch(word):
        return None
    try:
        number: int | float = read_json(word)
    except ValueError:  # 007, 1e999, or more digits than Python converts
        return None
    return number if str(number) == word else None


def _read_setting(setting: str) -> tuple[str, Any]:
    name, value = name_and_value("--set", setting)
    return name, text_of_file(f"--set {name}", value[1:]) if value.startswith("@") else _read_value(value)


def _read_value(value: str) -> Any:
    """Parses JSON; other values are text. A text that looks like JSON must be put in quotes."""
    word = value.strip()
    if _NUMBER.fullmatch(word):
        number = exact_number(word)
        return value if number is None else number
    try:
        return read_json(value)
    except (ValueError, RecursionError):
        return value


def _finite(digits: str) -> float:
    number = float(digits)
    return _refuse(digits) if isinf(number) else number


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")
