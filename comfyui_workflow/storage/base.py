"""Protocols of external storage, to which outputs are uploaded."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Protocol


class Storage(Protocol):
    def put(self, path: Path, key: str, content_type: str) -> str:
        """Uploads a file and returns a URL that it can be read from. The upload is complete when this
        returns. Raises: StorageError."""


class Answer(Protocol):
    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def content(self) -> bytes: ...


Send = Callable[[str, str, bytes | IO[bytes] | None, Mapping[str, str]], Answer]
"""`send(method, url, content, headers)` sends one HTTP request. Raises: UrlRefused, WebError."""
