"""Files of an instance, over SFTP on its connection. May be called from any thread.

RemoteFiles
    transfers_at_once                                   for how many threads it is worth it
    stat(path, *, heed=None) -> RemoteFile | None
    list(path) -> tuple[RemoteFile, ...]                by name
    upload(local, remote, *, progress=None)             never overwrites: RemoteFileExists
    fetch(remote, part, *, expected_size=None, progress=None) -> RemoteFile
                                                        carries a part on that broke off, of the same file
    download(remote, local_part, *, expected_size=None, progress=None) -> int (bytes)
    sha256(remote, *, heed=None) -> str                 hex; reads the file back, remembers the answer
    make_directory(path)                                with parents; fine when it is there
    remove(path, *, heed=None)                          fine when it is gone

Every method raises ConnectionFailed when the connection died (RemoteFilesSilent where only the server of
files stands still), RemoteFileMissing and RemoteFileError (permission, no space, ...).
`progress(done_bytes, total_bytes)` may raise to abort: its exception comes out. While nothing moves it is
called twice a second with what it was told last, and so is `heed()`, which may raise too.
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
    RemoteFilesSilent,
    Stopped,
    WorkflowError,
)
from comfyui_workflow.files.partial_files import LocalPart
from comfyui_workflow.ssh.sftp.channels import SftpChannels
from comfyui_workflow.ssh.sftp.download import (
    Progress,
    Source,
    in_flight_bytes,
    reading,
    receive,
)
from comfyui_workflow.ssh.sftp.session import MOST_ENTRIES, Attributes, SftpSession
from comfyui_workflow.ssh.sftp.upload import Helpers, Sent, send

_LOGGER = logging.getLogger(__name__)

# SFTP tells times in whole seconds: a file this young may change once more without showing it.
MIN_CACHEABLE_AGE_S = 3.0

# Far away, one session takes no more than sshd's window for each round trip.
MOST_HELPERS = 5

# How long an upload that failed tries to leave nothing behind.
CLEANUP_TIMEOUT_S = 2.0

OnWait = Callable[[], None]


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

    def stat(self, path: str, *, heed: OnWait | None = None) -> RemoteFile | None:
        with self._session(path, "looked at", heed=heed) as session:
            try:
                return _describe(posixpath.basename(path), session.attributes(session.stat(path)))
            except FileNotFoundError:
                return None

    def list(self, path: str) -> tuple[RemoteFile, ...]:
        """Raises: RemoteFileError for a directory of more entries than anybody has."""
        found: dict[str, Attributes] = {}
        with self._session(path, "listed") as session:
            handle = session.handle(session.open_directory(path))
            while names := session.names(session.read_directory(handle)):
                found |= names
                if len(found) > MOST_ENTRIES:
                    raise RemoteFileError(f"{path} has more than {MOST_ENTRIES} entries on {self._label}.")
            session.abandon(session.close_file(handle))
        return tuple(_describe(name, found[name]) for name in sorted(found) if name not in (".", ".."))

    def upload(self, local: Path, remote: str, *, progress: Progress | None = None) -> None:
        """Into a file of another name beside it first: under its own name it is complete or not there."""
        report = _Reporter(progress or _no_progress)
        part = f"{remote}.part-{secrets.token_hex(6)}"
        try:
            with self._session(remote, "written", report=report) as session:
                sent = send(session, local, part, report, self._helpers)
                _finish_upload(session, sent, part, remote)
        except Exception as error:
            if not isinstance(error, RemoteFilesSilent):
                self._remove_partial_upload(part)
            raise

    def fetch(
        self,
        remote: str,
        part: LocalPart,
        *,
        expected_size: int | None = None,
        progress: Progress | None = None,
    ) -> RemoteFile:
        """The file as it was when its last byte had been read."""
        report = _Reporter(progress or _no_progress)
        with self._session(remote, "read", report=report) as session, reading(session, remote) as source:
            if expected_size is not None:
                _check_size(remote, source.size_bytes, expected_size)
            start = part.begin(source.size_bytes, version_of(source.size_bytes, source.modified_s))
            self._receive(session, remote, source, part.write, report, start=start)
        return _describe(posixpath.basename(remote), _attributes_of(source))

    def download(
        self,
        remote: str,
        local_part: Path,
        *,
        expected_size: int | None = None,
        progress: Progress | None = None,
    ) -> int:
        with LocalPart(local_part) as part:
            return self.fetch(remote, part, expected_size=expected_size, progress=progress).size_bytes

    def sha256(self, remote: str, *, heed: OnWait | None = None) -> str:
        """Of the content as it is now; asked again for an unchanged file, the answer is remembered."""
        found = self.stat(remote, heed=heed)
        if found is None:
            raise RemoteFileMissing(f"{remote} is not on {self._label}.")
        key = (remote, found.size_bytes, found.modified_at)
        with self._hashes_lock:
            known = self._hashes.get(key)
        return known or self._hash(key, heed or _noop)

    def make_directory(self, path: str) -> None:
        with self._session(path, "made") as session:
            _make_directory(session.client, posixpath.normpath(path))

    def remove(self, path: str, *, heed: OnWait | None = None) -> None:
        with self._session(path, "removed", heed=heed) as session:
            try:
                session.wait(session.remove(path))
            except FileNotFoundError:
                return

    def _hash(self, key: tuple[str, int, datetime], heed: OnWait) -> str:
        remote, size_bytes, modified_at = key
        digest = hashlib.sha256()
        report = _Reporter(lambda _done_bytes, _total_bytes: heed())
        with (
            self._session(remote, "read", report=report) as session,
            reading(session, remote) as source,
        ):
            _check_size(remote, source.size_bytes, size_bytes)
            self._receive(session, remote, source, digest.update, report)
        if abs(time.time() - modified_at.timestamp()) > MIN_CACHEABLE_AGE_S:
            with self._hashes_lock:
                self._hashes[key] = digest.hexdigest()
        return digest.hexdigest()

    def _receive(
        self,
        session: SftpSession,
        remote: str,
        source: Source,
        sink: Callable[[memoryview], object],
        report: Progress,
        *,
        start: int = 0,
    ) -> None:
        """Raises: RemoteFileError when it was not one and the same file all the while."""
        most_bytes = in_flight_bytes(self._channels.round_trip_s)
        received = receive(session, source, sink, report, most_bytes=most_bytes, start=start)
        _check_size(remote, received.end, source.size_bytes)
        if received.modified_s != source.modified_s:
            raise RemoteFileError(f"{remote} was changed on {self._label} while it was read.")

    @property
    def _helpers(self) -> Helpers:
        return Helpers(
            count=MOST_HELPERS if self._channels.is_far else 0,
            lease=lambda while_waiting: self._channels.lease(is_transfer=True, while_waiting=while_waiting),
        )

    def _remove_partial_upload(self, part: str) -> None:
        """After an upload that failed. On a dead connection the piece stays, under a name nobody uses."""
        until_s = time.monotonic() + CLEANUP_TIMEOUT_S

        def heed() -> None:
            if time.monotonic() > until_s:
                raise Stopped("it takes too long")

        try:
            self.remove(part, heed=heed)
        except WorkflowError as error:
            _LOGGER.info("A piece of an upload is left on %s: %s", self._label, error)

    @contextmanager
    def _session(
        self, path: str, action: str, *, report: "_Reporter | None" = None, heed: OnWait | None = None
    ) -> Iterator[SftpSession]:
        """A session for one operation; with `report` it is a transfer. Errors come out in our words."""
        heed = report.repeat if report else heed or _noop
        try:
            with self._channels.lease(is_transfer=report is not None, while_waiting=heed) as session:
                session.on_wait = heed
                yield session
        except (TimeoutError, EOFError, paramiko.SSHException, SFTPError) as error:
            raise self._connection_error(path, action, error) from error
        except FileNotFoundError as error:
            raise RemoteFileMissing(f"{path} cannot be {action}: it is not on {self._label}.") from error
        except (OSError, UnicodeError) as error:
            if str(error) == "Socket is closed" or not self._channels.is_connected:
                raise self._connection_error(path, action, error) from error
            raise self._file_error(path, action, error) from error

    def _connection_error(self, path: str, action: str, error: BaseException) -> ConnectionFailed:
        is_silent = isinstance(error, TimeoutError) and self._channels.is_connected
        reason = "it does not answer" if isinstance(error, TimeoutError) else "the connection was cut"
        kind = RemoteFilesSilent if is_silent else ConnectionFailed
        return kind(f"{path} could not be {action} on {self._label}: {reason}.")

    def _file_error(self, path: str, action: str, error: OSError | UnicodeError) -> RemoteFileError:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, PermissionError):
            reason = "permission denied"
        elif reason == "Failure" and action == "written":
            reason = "the instance does not say why (is its disk full?)"
        return RemoteFileError(f"{path} cannot be {action} on {self._label}: {reason}.")


class _Reporter:
    """Calls `progress`, and again with what it was told last."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._last = (0, 0)

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        self._last = (done_bytes, total_bytes)
        self._progress(done_bytes, total_bytes)

    def repeat(self) -> None:
        self._progress(*self._last)


def version_of(size_bytes: int, modified_s: int) -> str:
    """The same for the same file, as far as SFTP can tell."""
    return f"{size_bytes} bytes of {modified_s}"


def _attributes_of(source: Source) -> Attributes:
    return Attributes(size_bytes=source.size_bytes, is_directory=False, modified_s=source.modified_s)


def _describe(name: str, found: Attributes) -> RemoteFile:
    return RemoteFile(
        name=name,
        size_bytes=found.size_bytes,
        modified_at=datetime.fromtimestamp(found.modified_s, UTC),
        is_directory=found.is_directory,
    )


def _check_size(remote: str, size_bytes: int | None, expected_bytes: int) -> None:
    if size_bytes != expected_bytes:
        raise RemoteFileError(
            f"{remote} has {size_bytes} bytes instead of {expected_bytes}: it was changed or cut short."
        )


def _finish_upload(session: SftpSession, sent: Sent, part: str, remote: str) -> None:
    """What arrived gets its name. By the protocol a rename onto a file fails; not every server knows."""
    fstat_request, lstat_request = session.fstat(sent.handle), session.lstat(remote)
    close_request = session.close_file(sent.handle)
    for number in sent.pending:
        session.wait(number)
    _check_size(part, session.attributes(fstat_request).size_bytes, sent.size_bytes)
    session.wait(close_request)
    if _exists(session, lstat_request):
        raise RemoteFileExists(f"{remote} is there already; it was not overwritten.")
    try:
        session.wait(session.rename(part, remote))
    except TimeoutError:
        raise
    except OSError as error:
        if _exists(session, session.lstat(remote)):
            raise RemoteFileExists(f"{remote} is there already; it was not overwritten.") from error
        raise


def _exists(session: SftpSession, lstat_request: int) -> bool:
    """Also when it is a symlink to nowhere."""
    try:
        session.attributes(lstat_request)
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
        return stat.S_ISDIR(client.stat(path).st_mode or 0)
    except FileNotFoundError:
        return False


def _no_progress(_done_bytes: int, _total_bytes: int) -> None:
    pass


def _noop() -> None:
    pass
