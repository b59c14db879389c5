"""What is wrong with an input, in words: the same whether ComfyUI says it or we say it before."""

from collections.abc import Sequence

from comfyui_workflow.parsing.untrusted import shown

MOST_CHOICES_SHOWN = 12


def quoted(value: object) -> str:
    """Any value; a text so that one sees that it is one."""
    return shown(repr(value)) if isinstance(value, str) else shown(value)


def missing(name: str) -> str:
    return f'input "{name}" is missing'


def wrong_type(name: str, value: object, wanted: object) -> str:
    return f'input "{name}" is {quoted(value)}, it must be {shown(wanted)}'


def too_small(name: str, value: object, least: object) -> str:
    return f'input "{name}" is {shown(value)}, the least allowed is {shown(least)}'


def too_big(name: str, value: object, most: object) -> str:
    return f'input "{name}" is {shown(value)}, the most is {shown(most)}'


def not_in_list(name: str, value: object, offered: str) -> str:
    return f'input "{name}" is "{shown(value)}", which this ComfyUI has not got{offered}'


def wrong_link(name: str, details: object) -> str:
    return f'input "{name}" is linked to the wrong type ({shown(details)})'


def offer(choices: Sequence[object] | None, near: Sequence[str]) -> str:
    """All of a short list; of a long one what is nearest."""
    if choices is None:
        return ""
    if not choices:
        return " (it has none at all)"
    if len(choices) <= MOST_CHOICES_SHOWN:
        return "; it has: " + ", ".join(shown(choice) for choice in choices)
    return f"; the nearest of its {len(choices)}: " + ", ".join(near) if near else ""
