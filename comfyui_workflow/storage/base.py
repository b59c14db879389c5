"""Places outside to which outputs are brought."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Protocol


class Storage(Protocol):
    def put(self, path: Path, key: str, content_type: str) -> str:
        """A URL under which it can be read; it is there when this returns. Raises: StorageError."""


class Answer(Protocol):
    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def content(self) -> bytes: ...


Send = Callable[[str, str, bytes | IO[bytes] | None, Mapping[str, str]], Answer]
"""`send(method, url, content, headers)`: one request. Raises: UrlRefused, WebError."""
