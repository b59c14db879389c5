"""Text processing of the editor when it queues a prompt: dynamic prompts, and placeholders in file names."""

import re
from collections.abc import Callable, Iterator
from datetime import datetime

LONGEST_NAME = 4096
"""Maximum length of a file name with its directories, on any system."""
_ESCAPED = ("\\{", "\\}", "\\|")
_TOKENS = re.compile(r"\\[{}|]|[{}|]|[^{}|\\]+|\\", re.DOTALL)
_COMMENT = re.compile(r"/\*|//[^\n\r\u2028\u2029]*")
_LINE_COMMENT = re.compile(r"//[^\n\r\u2028\u2029]*")
_REPLACEMENT = re.compile(r"%([^%]+)%")
_NOT_IN_NAMES = re.compile(r'[/?<>\\:*|"\x00-\x1f\x7f]')
_DATE_PARTS = re.compile(r"d{1,2}|M{1,2}|h{1,2}|m{1,2}|s{1,2}|y{2,4}")


def dynamic_prompt(text: str, choose: Callable[[list[str]], str]) -> str:
    """Returns the text without comments, and with one choice selected of each `{a|b}`, also nested ones.
    `\\{`, `\\}` and `\\|` are plain characters."""
    open_choices: list[list[list[str]]] = [[[]]]
    """For each open bracket its choices, and for each choice its pieces of text."""
    for piece in _TOKENS.findall("".join(_without_comments(text))):
        if piece == "{":
            open_choices.append([[]])
        elif piece == "|" and len(open_choices) > 1:
            open_choices[-1].append([])
        elif piece == "}" and len(open_choices) > 1:
            _close_choice(open_choices, choose)
        else:
            open_choices[-1][-1].append(piece[1:] if piece in _ESCAPED else piece)
    while len(open_choices) > 1:
        _close_choice(open_choices, choose)
    return "".join(open_choices[0][0])


def _close_choice(open_choices: list[list[list[str]]], choose: Callable[[list[str]], str]) -> None:
    chosen = choose(["".join(pieces) for pieces in open_choices.pop()])
    open_choices[-1][-1].append(chosen)


def _without_comments(text: str) -> Iterator[str]:
    """Yields the pieces of the text between comments. A comment that is not closed is text."""
    done = looked = 0
    while found := _COMMENT.search(text, looked):
        is_block = found[0] == "/*"
        end = text.find("*/", found.end()) if is_block else found.end()
        if end < 0:  # no later block comment is closed either
            break
        yield text[done : found.start()]
        done = looked = end + 2 * is_block
    yield from _LINE_COMMENT.split(text[done:])


def with_replacements(text: str, at: datetime, widget_text: Callable[[str, str], str | None]) -> str:
    """Replaces `%date:yyyy-MM-dd%` by the time, and `%Node.widget%` by the value of the widget.

    Other placeholders stay: ComfyUI itself replaces `%width%`. A date ends at a dot, as in the editor. A text
    that is too long for a file name is returned unchanged.
    """

    def replacement(match: re.Match[str]) -> str:
        words = match[1].split(".")
        if words[0].startswith("date:") and len(words) != 2:
            return _date(words[0].removeprefix("date:"), at)
        value = widget_text(*words) if len(words) == 2 else None
        return match[0] if value is None else _NOT_IN_NAMES.sub("_", value[:LONGEST_NAME])

    return _REPLACEMENT.sub(replacement, text) if len(text) <= LONGEST_NAME else text


def _date(form: str, at: datetime) -> str:
    parts = {"d": at.day, "M": at.month, "h": at.hour, "m": at.minute, "s": at.second}

    def part(match: re.Match[str]) -> str:
        letters = match[0]
        if letters[0] == "y":
            return str(at.year) if len(letters) == 4 else str(at.year)[-2:] if len(letters) == 2 else letters
        return str(parts[letters[0]]).zfill(len(letters))

    return _DATE_PARTS.sub(part, form)
