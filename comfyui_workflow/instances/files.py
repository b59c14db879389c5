"""Files of an instance, over SFTP on its connection. May be called from any thread.

RemoteFiles
    stat(path) -> RemoteFile | None
    list(path) -> tuple[RemoteFile, ...]
    upload(local, remote, *, progress=None)             never overwrites: RemoteFileExists
    download(remote, local_part, *, expected_size=None, progress=None) -> int (bytes)
    sha256(remote) -> str                               hex; reads the file back, remembers the answer
    make_directory(path)                                with parents; fine when it is there
    remove(path)                                        fine when it is gone

Every method raises ConnectionFailed when the connection died, RemoteFileMissing and RemoteFileError
(permission, no space, ...). `progress(done_bytes, total_bytes)` may raise to abort: its exception comes out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """What SFTP tells of a file. `modified_at` is UTC, whole seconds, by the instance's clock."""

    name: str
    size_bytes: int
    modified_at: datetime
    is_directory: bool


class RemoteFiles(Protocol):
    def stat(self, path: str) -> RemoteFile | None: ...

    def list(self, path: str) -> tuple[RemoteFile, ...]: ...

    def upload(self, local: Path, remote: str, *, progress: Progress | None = None) -> None: ...

    def download(
        self,
        remote: str,
        local_part: Path,
        *,
        expected_size: int | None = None,
        progress: Progress | None = None,
    ) -> int: ...

    def sha256(self, remote: str) -> str: ...

    def make_directory(self, path: str) -> None: ...

    def remove(self, path: str) -> None: ...
