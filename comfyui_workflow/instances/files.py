"""Files of an instance, over SFTP on its connection. May be called from any thread.

RemoteFiles
    stat(path) -> RemoteFile | None
    list(path) -> tuple[RemoteFile, ...]                by name
    upload(local, remote, *, progress=None)             never overwrites: RemoteFileExists
    download(remote, local_part, *, expected_size=None, progress=None) -> int (bytes)
    sha256(remote) -> str                               hex; reads the file back, remembers the answer
    make_directory(path)                                with parents; fine when it is there
    remove(path)                                        fine when it is gone

Every method raises ConnectionFailed when the connection died, RemoteFileMissing and RemoteFileError
(permission, no space, ...). `progress(done_bytes, total_bytes)` may raise to abort: its exception comes out.
While a transfer waits for its turn, progress(0, 0) is called twice a second.
Local trouble is FileRefused (what to upload) or StoreError (where to download).
"""

import hashlib
import logging
import posixpath
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import paramiko
from paramiko.sftp import SFTPError

from comfyui_workflow.errors import (
    ConnectionFailed,
    RemoteFileError,
    RemoteFileExists,
    RemoteFileMissing,
    WorkflowError,
)
from comfyui_workflow.instances.sftp_channels import NoSftpChannels, SftpChannels
from comfyui_workflow.instances.transfer import LocalPart, Progress, receive, send

_LOGGER = logging.getLogger(__name__)

# SFTP tells times in whole seconds: a file this young may change once more without showing it.
YOUNG_S = 3.0


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """What SFTP tells of a file. `modified_at` is UTC, whole seconds, by the instance's clock."""

    name: str
    size_bytes: int
    modified_at: datetime
    is_directory: bool


class RemoteFiles:
    """Paths are the instance's; relative ones start at the user's home directory there."""

    def __init__(self, channels: SftpChannels | NoSftpChannels, label: str) -> None:
        self._channels = channels
        self._label = label
        self._hashes: dict[tuple[str, int, datetime], str] = {}
        self._hashes_lock = threading.Lock()

    def stat(self, path: str) -> RemoteFile | None:
        with self._session(path, "looked at") as client:
            try:
                return _describe(posixpath.basename(path), client.stat(path))
            except FileNotFoundError:
                return None

    def list(self, path: str) -> tuple[RemoteFile, ...]:
        with self._session(path, "listed") as client:
            found = client.listdir_attr(path)
        return tuple(_describe(item.filename, item) for item in sorted(found, key=lambda item: item.filename))

    def upload(self, local: Path, remote: str, *, progress: Progress | None = None) -> None:
        """Into a file of another name beside it first: under its own name it is complete or not there."""
        report = progress or _no_progress
        part = f"{remote}.part-{secrets.token_hex(6)}"
        try:
            with self._session(remote, "written", report=report) as client:
                sent_bytes = send(client, local, part, report)
                _check_size(part, client.stat(part).st_size, sent_bytes)
                _rename(client, part, remote)
        except Exception:
            self._sweep(part)
            raise

    def download(
        self,
        remote: str,
        local_part: Path,
        *,
        expected_size: int | None = None,
        progress: Progress | None = None,
    ) -> int:
        report = progress or _no_progress
        with self._session(remote, "read", report=report) as client:
            size_bytes = _readable_size(client, remote)
            if expected_size is not None:
                _check_size(remote, size_bytes, expected_size)
            with LocalPart(local_part) as part:
                received_bytes = receive(client, remote, size_bytes, part.write, report)
            _check_size(remote, received_bytes, size_bytes)
        return received_bytes

    def sha256(self, remote: str) -> str:
        """Of the content as it is now; asked again for an unchanged file, the answer is remembered."""
        found = self.stat(remote)
        if found is None:
            raise RemoteFileMissing(f"{remote} is not on {self._label}.")
        key = (remote, found.size_bytes, found.modified_at)
        with self._hashes_lock:
            known = self._hashes.get(key)
        return known or self._hash(key)

    def make_directory(self, path: str) -> None:
        with self._session(path, "made") as client:
            _make_directory(client, posixpath.normpath(path))

    def remove(self, path: str) -> None:
        with self._session(path, "removed") as client:
            try:
                client.remove(path)
            except FileNotFoundError:
                return

    def _hash(self, key: tuple[str, int, datetime]) -> str:
        remote, size_bytes, modified_at = key
        digest = hashlib.sha256()
        with self._session(remote, "read", report=_no_progress) as client:
            received_bytes = receive(client, remote, size_bytes, digest.update, _no_progress)
            _check_size(remote, received_bytes, size_bytes)
        if abs(time.time() - modified_at.timestamp()) > YOUNG_S:
            with self._hashes_lock:
                self._hashes[key] = digest.hexdigest()
        return digest.hexdigest()

    def _sweep(self, part: str) -> None:
        """After an upload that failed. On a dead connection the piece stays, under a name nobody uses."""
        try:
            self.remove(part)
        except WorkflowError as error:
            _LOGGER.info("A piece of an upload is left on %s: %s", self._label, error)

    @contextmanager
    def _session(
        self, path: str, done: str, *, report: Progress | None = None
    ) -> Iterator[paramiko.SFTPClient]:
        """A session for one operation; with `report` it is a transfer. Errors come out in our words."""

        def keep_waiting() -> None:
            if report:
                report(0, 0)

        try:
            with self._channels.lease(is_transfer=report is not None, while_waiting=keep_waiting) as client:
                yield client
        except (TimeoutError, EOFError, paramiko.SSHException, SFTPError) as error:
            raise self._cut(path, done, error) from error
        except FileNotFoundError as error:
            raise RemoteFileMissing(f"{path} cannot be {done}: it is not on {self._label}.") from error
        except (OSError, UnicodeError) as error:
            if str(error) == "Socket is closed" or not self._channels.is_connected:
                raise self._cut(path, done, error) from error
            raise self._refused(path, done, error) from error

    def _cut(self, path: str, done: str, error: BaseException) -> ConnectionFailed:
        reason = "it does not answer" if isinstance(error, TimeoutError) else "the connection was cut"
        return ConnectionFailed(f"{path} could not be {done} on {self._label}: {reason}.")

    def _refused(self, path: str, done: str, error: OSError | UnicodeError) -> RemoteFileError:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, PermissionError):
            reason = "permission denied"
        elif reason == "Failure" and done == "written":
            reason = "the instance does not say why (is its disk full?)"
        return RemoteFileError(f"{path} cannot be {done} on {self._label}: {reason}.")


def _describe(name: str, attributes: paramiko.SFTPAttributes) -> RemoteFile:
    return RemoteFile(
        name=name,
        size_bytes=attributes.st_size or 0,
        modified_at=datetime.fromtimestamp(attributes.st_mtime or 0, UTC),
        is_directory=stat.S_ISDIR(attributes.st_mode or 0),
    )


def _readable_size(client: paramiko.SFTPClient, remote: str) -> int:
    found = _describe(remote, client.stat(remote))
    if found.is_directory:
        raise RemoteFileError(f"{remote} is a directory, not a file.")
    return found.size_bytes


def _check_size(remote: str, size_bytes: int | None, expected_bytes: int) -> None:
    if size_bytes != expected_bytes:
        raise RemoteFileError(
            f"{remote} has {size_bytes} bytes instead of {expected_bytes}: it was changed or cut short."
        )


def _rename(client: paramiko.SFTPClient, part: str, remote: str) -> None:
    """The protocol says that a rename onto a file fails; not every server knows."""
    if _exists(client, remote):
        raise RemoteFileExists(f"{remote} is there already; it was not overwritten.")
    try:
        client.rename(part, remote)
    except TimeoutError:
        raise
    except OSError as error:
        if _exists(client, remote):
            raise RemoteFileExists(f"{remote} is there already; it was not overwritten.") from error
        raise


def _exists(client: paramiko.SFTPClient, path: str) -> bool:
    """Also when it is a symlink to nowhere."""
    try:
        client.lstat(path)
    except FileNotFoundError:
        return False
    return True


def _make_directory(client: paramiko.SFTPClient, path: str) -> None:
    if _is_directory(client, path):
        return
    parent = posixpath.dirname(path)
    if parent not in ("", path):
        _make_directory(client, parent)
    try:
        client.mkdir(path)
    except TimeoutError:
        raise
    except OSError:
        if not _is_directory(client, path):  # somebody else may have been faster
            raise


def _is_directory(client: paramiko.SFTPClient, path: str) -> bool:
    try:
        return _describe(path, client.stat(path)).is_directory
    except FileNotFoundError:
        return False


def _no_progress(_done_bytes: int, _total_bytes: int) -> None:
    pass
