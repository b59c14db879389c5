"""Files of an instance, over SFTP on its connection. May be called from any thread.

RemoteFiles
    transfers_at_once                                   for how many threads it is worth it
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
from collections.abc import Callable, Iterator
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
from comfyui_workflow.instances.sending import Helpers, Sent, send
from comfyui_workflow.instances.sftp_channels import SftpChannels
from comfyui_workflow.instances.sftp_session import SftpSession
from comfyui_workflow.instances.transfer import (
    LocalPart,
    Progress,
    Source,
    in_flight_bytes,
    reading,
    receive,
)

_LOGGER = logging.getLogger(__name__)

# SFTP tells times in whole seconds: a file this young may change once more without showing it.
YOUNG_S = 3.0

# Far away, one session takes no more than sshd's window for each round trip.
MOST_HELPERS = 5


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """What SFTP tells of a file. `modified_at` is UTC, whole seconds, by the instance's clock."""

    name: str
    size_bytes: int
    modified_at: datetime
    is_directory: bool


class RemoteFiles:
    """Paths are the instance's; relative ones start at the user's home directory there."""

    def __init__(self, channels: SftpChannels, label: str) -> None:
        self._channels = channels
        self._label = label
        self._hashes: dict[tuple[str, int, datetime], str] = {}
        self._hashes_lock = threading.Lock()

    @property
    def transfers_at_once(self) -> int:
        """How many threads may transfer before they wait for each other."""
        return self._channels.transfers_at_once

    def stat(self, path: str) -> RemoteFile | None:
        with self._session(path, "looked at") as session:
            try:
                return _describe(posixpath.basename(path), session.client.stat(path))
            except FileNotFoundError:
                return None

    def list(self, path: str) -> tuple[RemoteFile, ...]:
        with self._session(path, "listed") as session:
            found = session.client.listdir_attr(path)
        return tuple(_describe(item.filename, item) for item in sorted(found, key=lambda item: item.filename))

    def upload(self, local: Path, remote: str, *, progress: Progress | None = None) -> None:
        """Into a file of another name beside it first: under its own name it is complete or not there."""
        report = progress or _no_progress
        part = f"{remote}.part-{secrets.token_hex(6)}"
        try:
            with self._session(remote, "written", report=report) as session:
                sent = send(session, local, part, report, self._helpers)
                _settle(session, sent, part, remote)
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
        with self._session(remote, "read", report=report) as session, reading(session, remote) as source:
            if expected_size is not None:
                _check_size(remote, source.size_bytes, expected_size)
            with LocalPart(local_part) as part:
                return self._receive(session, remote, source, part.write, report)

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
        with self._session(path, "made") as session:
            _make_directory(session.client, posixpath.normpath(path))

    def remove(self, path: str) -> None:
        with self._session(path, "removed") as session:
            try:
                session.client.remove(path)
            except FileNotFoundError:
                return

    def _hash(self, key: tuple[str, int, datetime]) -> str:
        remote, size_bytes, modified_at = key
        digest = hashlib.sha256()
        with (
            self._session(remote, "read", report=_no_progress) as session,
            reading(session, remote) as source,
        ):
            _check_size(remote, source.size_bytes, size_bytes)
            self._receive(session, remote, source, digest.update, _no_progress)
        if abs(time.time() - modified_at.timestamp()) > YOUNG_S:
            with self._hashes_lock:
                self._hashes[key] = digest.hexdigest()
        return digest.hexdigest()

    def _receive(
        self,
        session: SftpSession,
        remote: str,
        source: Source,
        take: Callable[[memoryview], object],
        report: Progress,
    ) -> int:
        most_bytes = in_flight_bytes(self._channels.round_trip_s)
        received_bytes = receive(session, source, take, report, most_bytes=most_bytes)
        _check_size(remote, received_bytes, source.size_bytes)
        return received_bytes

    @property
    def _helpers(self) -> Helpers:
        return Helpers(
            count=MOST_HELPERS if self._channels.is_far else 0,
            lease=lambda while_waiting: self._channels.lease(is_transfer=True, while_waiting=while_waiting),
        )

    def _sweep(self, part: str) -> None:
        """After an upload that failed. On a dead connection the piece stays, under a name nobody uses."""
        try:
            self.remove(part)
        except WorkflowError as error:
            _LOGGER.info("A piece of an upload is left on %s: %s", self._label, error)

    @contextmanager
    def _session(self, path: str, done: str, *, report: Progress | None = None) -> Iterator[SftpSession]:
        """A session for one operation; with `report` it is a transfer. Errors come out in our words."""

        def keep_waiting() -> None:
            if report:
                report(0, 0)

        try:
            with self._channels.lease(is_transfer=report is not None, while_waiting=keep_waiting) as session:
                yield session
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


def _check_size(remote: str, size_bytes: int | None, expected_bytes: int) -> None:
    if size_bytes != expected_bytes:
        raise RemoteFileError(
            f"{remote} has {size_bytes} bytes instead of {expected_bytes}: it was changed or cut short."
        )


def _settle(session: SftpSession, sent: Sent, part: str, remote: str) -> None:
    """What arrived gets its name. By the protocol a rename onto a file fails; not every server knows."""
    measuring, looking = session.fstat(sent.handle), session.lstat(remote)
    closing = session.close_file(sent.handle)
    for number in sent.under_way:
        session.done(number)
    _check_size(part, session.attributes(measuring).size_bytes, sent.size_bytes)
    session.done(closing)
    if _is_there(session, looking):
        raise RemoteFileExists(f"{remote} is there already; it was not overwritten.")
    try:
        session.done(session.rename(part, remote))
    except TimeoutError:
        raise
    except OSError as error:
        if _is_there(session, session.lstat(remote)):
            raise RemoteFileExists(f"{remote} is there already; it was not overwritten.") from error
        raise


def _is_there(session: SftpSession, looking: int) -> bool:
    """Also when it is a symlink to nowhere."""
    try:
        session.attributes(looking)
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
