"""`_meta` of a node, as the editor writes it: the title, and the node pack that has the class.

Saved pictures carry the graph with `_meta`; ComfyUI Manager and other readers of a graph find the pack by it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

_REGISTRY_ID = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9._-]{0,98}[a-zA-Z0-9])?")
_ACCOUNT = re.compile(r"(?=.{1,39}/)[a-zA-Z0-9]+(?:-[a-zA-Z0-9]+)*/")
_COMMIT = re.compile(r"[0-9a-fA-F]{4,40}")
_NUMBER = r"(?:0|[1-9][0-9]*)"
_NAMES = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_NAMES})?(?:\+{_NAMES})?")


def node_metadata(title: str, properties: Mapping[str, Any]) -> dict[str, str]:
    """Returns `title`, and those of `cnr_id` (the pack in the registry of ComfyUI), `aux_id` (its repository
    at GitHub) and `ver` (its version) that the node has and that the editor takes as valid."""
    read = {name: reader(properties.get(name)) for name, reader in _READERS.items()}
    return {"title": title, **{name: value for name, value in read.items() if value}}


def _registry_id(value: object) -> str | None:
    return value if isinstance(value, str) and _REGISTRY_ID.fullmatch(value) else None


def _repository(value: object) -> str | None:
    account = _ACCOUNT.match(value) if isinstance(value, str) else None
    if account is None or _registry_id(account.string[account.end() :]) is None:
        return None
    return account.string


def _version(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    number = value.removeprefix("v")
    if _VERSION.fullmatch(number) or _COMMIT.fullmatch(number):
        return number
    return value if value == "unknown" else None


_READERS: dict[str, Callable[[object], str | None]] = {
    "cnr_id": _registry_id,
    "aux_id": _repository,
    "ver": _version,
}
