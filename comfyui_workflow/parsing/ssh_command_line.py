"""Splits a pasted command line into plain words. Pure.

read_words(text) -> list[str]; raises InvalidAddress.

How it works: characters of word processors (dashes, quotes, invisible spaces) become ASCII; a code fence,
line continuations, a shell prompt, a sign at the end that is not for ssh, and quotes around the whole line
are removed; the rest is split with `shlex`. Only a Host block of an SSH configuration may have several lines.
"""

import re
import shlex
import unicodedata

from comfyui_workflow.errors import InvalidAddress

LONGEST_CHARACTERS = 2000
BLANKS = " \t\r\n"

_DASHES = "‐‑‒–—―−﹣－"
_QUOTES = {"“": '"', "”": '"', "„": '"', "″": '"', "‘": "'", "’": "'", "‚": "'", "′": "'"}
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"
_PLAIN = str.maketrans({**dict.fromkeys(_DASHES, "-"), **_QUOTES, **dict.fromkeys(_INVISIBLE, ""), "\t": " "})

_FENCE = re.compile(r"^```\w*\n")
_CONTINUATION = re.compile(r"[\\^`][ ]*\r?\n|\r?\n[ ]*(?=-)|(?<=[ ])[\\^`][ ]+")
"""The end of a line in sh, cmd.exe or PowerShell, also after an input field of a page has joined the lines;
or a line that was broken before an option."""
_BLOCK = re.compile(r"(?:#[^\n]*\n\s*)*Host(?:Name)?\b[ ]*[:=]?[ ]*\S", re.IGNORECASE)
_COMMENT_LINE = re.compile(r"^[ ]*#[^\n]*$", re.MULTILINE)
_PROMPT = re.compile(r"^(?:[$#%>] +|(?!ssh)(?:[❯➜»λ].*?|.*?[$#%>❯➜»]) *(?=ssh(?:\.exe)? ))", re.IGNORECASE)
_HOME = re.compile(r"\$(?:HOME|\{HOME\})(?=/)")
_AFTER_COMMAND = " &;,"
_PLACEHOLDER = re.compile(r"<[A-Za-z][\w .-]*>|\{[A-Za-z][\w .-]*\}|\[[A-Za-z][\w -]*\]|\$\{?[A-Za-z]\w*\}?")
_WINDOWS_PATH = re.compile(r"(?:[A-Za-z]:|%\w+%|\\)\\[^\s'\"]*")
_SHELL_CHARACTER = re.compile(r"[;|&<>$`{}*?!#]|\\(?![ ()])")

_NOT_ACCEPTED = (
    (_PLACEHOLDER, "replace it by its value"),
    (_WINDOWS_PATH, "this is a path of Windows; write one of this server, with / (in WSL: /mnt/c/...)"),
    (_SHELL_CHARACTER, "special characters of a shell are not accepted"),
)


def read_words(text: object) -> list[str]:
    """Returns the words of one pasted command line. No shell and no expansion: special characters of a shell
    are refused."""
    if not isinstance(text, str):
        raise InvalidAddress(f"The SSH address must be text, not {type(text).__name__}.")
    if len(text) > LONGEST_CHARACTERS:
        raise InvalidAddress(f"The SSH address is longer than {LONGEST_CHARACTERS} characters.")
    line = _HOME.sub("~", _unwrap(_one_line(_plain(text))))
    for pattern, reason in _NOT_ACCEPTED:
        if found := pattern.search(line):
            raise refused_part(found.group(), reason)
    try:
        return shlex.split(line)
    except ValueError:
        raise InvalidAddress("The SSH address has a quote that is not closed.") from None


def refused_part(part: str, reason: str) -> InvalidAddress:
    """Returns the error that names the refused part, without its passwords and control characters."""
    shown = re.sub(r"(?<!ssh):.*@", ":***@", part, flags=re.DOTALL)
    shown = "".join(c if c.isprintable() else "�" for c in shown)
    shown = shown if len(shown) <= 60 else shown[:59] + "…"
    return InvalidAddress(f'The SSH address is refused because of "{shown}": {reason}.')


def _plain(text: str) -> str:
    text = text.translate(_PLAIN)
    return "".join(" " if unicodedata.category(c) == "Zs" else c for c in text)


def _one_line(text: str) -> str:
    text = _FENCE.sub("", text.strip(BLANKS)).strip(BLANKS + "`")
    if _BLOCK.match(text):
        text = re.sub(r"\s*\r?\n\s*", " ", _COMMENT_LINE.sub("", text))
    text = _CONTINUATION.sub(" ", text).strip(BLANKS)
    for character in text:
        if character in "\r\n\x85" or unicodedata.category(character) in ("Zl", "Zp"):
            raise InvalidAddress("The SSH address has more than one line; paste only the ssh command.")
        if unicodedata.category(character) in ("Cc", "Cf", "Cs"):
            raise refused_part(f"U+{ord(character):04X}", "control characters are not accepted")
    return text


def _unwrap(line: str) -> str:
    """Removes the shell prompt, and quotes or back-ticks around the whole line."""
    line = _PROMPT.sub("", line.strip("` "))
    if len(line) > 1 and line[0] == line[-1] and line[0] in "'\"" and line.count(line[0]) == 2:
        line = line[1:-1]
    return _PROMPT.sub("", line.strip("` ")).rstrip(_AFTER_COMMAND)
