"""Sentences about invalid inputs. The preflight and the errors of ComfyUI use the same ones."""

import re
from collections.abc import Sequence

from comfyui_workflow.parsing.storage_urls import is_storage_url
from comfyui_workflow.parsing.untrusted import shown

BY_URL = ". A URL in this place needs --provision for a model, and --input with the same URL for another file"

MOST_CHOICES_SHOWN = 12
_SEPARATORS = re.compile(r"[,.'\u2019\s]")
_THOUSANDS = re.compile(r"[-+]?\d{1,3}([,.'\u2019\s]\d{3})+")
_DECIMAL_COMMA = re.compile(r"[-+]?(\d+|\d{1,3}([.\s]\d{3})+)?,\d+([eE][-+]?\d+)?")


def quoted(value: object) -> str:
    """Formats a value for a sentence; a text is put into quotes."""
    return shown(repr(value)) if isinstance(value, str) else shown(value)


def missing(name: str) -> str:
    return f'input "{name}" is missing'


def wrong_type(name: str, value: object, wanted: object) -> str:
    return f'input "{name}" is {quoted(value)}, it must be {shown(wanted)}{_number_hint(value, wanted)}'


def _number_hint(value: object, wanted: object) -> str:
    """Says how to write a number that has a decimal comma, or separators between thousands."""
    if wanted not in ("INT", "FLOAT") or not isinstance(value, str):
        return ""
    written = value.strip()
    without_separators = _SEPARATORS.sub("", written)
    if _THOUSANDS.fullmatch(written):
        is_ambiguous = wanted == "FLOAT" and written.count(",") == 1
        return f" (write {without_separators}{' or ' + written.replace(',', '.') if is_ambiguous else ''})"
    if _DECIMAL_COMMA.fullmatch(written):
        digits, _, decimals = written.partition(",")
        return f" (write {_SEPARATORS.sub('', digits)}.{decimals}, with a point)"
    return ""


def too_small(name: str, value: object, least: object) -> str:
    return f'input "{name}" is {shown(value)}, the least allowed is {shown(least)}'


def too_big(name: str, value: object, most: object) -> str:
    return f'input "{name}" is {shown(value)}, the most is {shown(most)}'


def not_in_list(name: str, value: object, offered: str) -> str:
    advice = BY_URL if isinstance(value, str) and is_storage_url(value) else ""
    return f'input "{name}" is "{shown(value)}", which this ComfyUI has not got{offered}{advice}'


def wrong_link(name: str, details: object) -> str:
    return f'input "{name}" is linked to the wrong type ({shown(details)})'


def offer(choices: Sequence[object] | None, similar: Sequence[str]) -> str:
    """Returns the part of a sentence that lists the allowed choices: all of them, or of a long list only the
    most similar ones."""
    if choices is None:
        return ""
    if not choices:
        return " (it has none at all)"
    if len(choices) <= MOST_CHOICES_SHOWN:
        return "; it has: " + ", ".join(shown(choice) for choice in choices)
    return f"; the nearest of its {len(choices)}: " + ", ".join(similar) if similar else ""
