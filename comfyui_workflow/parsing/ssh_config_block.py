"""Reads a pasted Host block of an SSH configuration, or a list such as "IP: 1.2.3.4, Port: 22". Pure.

read_block(words) -> list[str] | None     words of the `ssh` command with the same meaning; None if the
                                          text is no such block. Raises: InvalidAddress
"""

from typing import NamedTuple

from comfyui_workflow.errors import InvalidAddress
from comfyui_workflow.parsing.ssh_command_line import refused_part
from comfyui_workflow.parsing.ssh_keywords import is_keyword

_OTHER_NAMES = {"ip": "HostName", "address": "HostName", "username": "User"}
_PASSWORDS = ("password", "pass", "passwd")


class _Setting(NamedTuple):
    keyword: str
    values: list[str]

    @property
    def is_host(self) -> bool:
        return self.keyword.lower() == "host"


def read_block(words: list[str]) -> list[str] | None:
    """A word that is a keyword of ssh begins a setting, so line breaks may be lost, as they are in an input
    field of a page."""
    settings = _settings(words)
    if len(settings) < 2 or settings[0].keyword.lower() not in ("host", "hostname"):
        return None
    if sum(setting.is_host for setting in settings) > 1:
        raise InvalidAddress("The text has more than one Host block; paste only that of the machine.")
    options = [
        word
        for setting in settings
        if not setting.is_host
        for word in ("-o", f"{setting.keyword}={' '.join(setting.values)}")
    ]
    return [*options, "--", *settings[0].values[:1]]


def _settings(words: list[str]) -> list[_Setting]:
    """Returns no settings if the text does not begin with a keyword."""
    settings: list[_Setting] = []
    for word in _separated(words):
        name = word.rstrip(":")
        name = _OTHER_NAMES.get(name.lower(), name)
        if settings and not settings[-1].values:
            settings[-1].values.append(word)
        elif name.lower() in _PASSWORDS:
            raise refused_part(word, "passwords are not accepted, only keys")
        elif is_keyword(name):
            settings.append(_Setting(name, []))
        elif not settings:
            return []
        else:
            settings[-1].values.append(word)
    return settings


def _separated(words: list[str]) -> list[str]:
    """Separates `Port=22` and `Port = 22`, and removes the commas and semicolons between settings."""
    separated: list[str] = []
    for word in words:
        name, sign, value = word.partition("=")
        separated += [name, value] if sign and is_keyword(name) else [word]
    return [word.rstrip(",;") for word in separated if word.strip("=,;:")]
