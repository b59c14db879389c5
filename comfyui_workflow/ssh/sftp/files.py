"""Files of an instance, over SFTP on its connection. Thread-safe.

RemoteFiles
    transfers_at_once                                   number of threads that can transfer in parallel
    `stat(path, *, on_wait=None) -> RemoteFile | None`
    `stat_all(paths, *, on_wait=None) -> list`          the same for several paths, in one round trip
    list(path) -> tuple[RemoteFile, ...]                sorted by name
    upload(local, remote, *, progress=None)             never overwrites: RemoteFileExists
    opening(remote, *, progress=None) -> context manager yielding an OpeningFile
                                                        a file to fetch, that is being opened
    fetch(remote, part, *, expected_size=None, progress=None) -> RemoteFile
                                                        resumes an interrupted part of the same file
    download(remote, local_part, *, expected_size=None, progress=None) -> int (bytes)
    read(path, most_bytes) -> bytes                     also for files without a size, as in /proc
    `sha256(remote, *, found=None, on_wait=None) -> str`   hex; reads the remote file, caches the result
    make_directory(path)                                with parents; no error if it exists
    `remove(path, *, on_wait=None)`                        no error if it does not exist

Every method raises ConnectionFailed if the connection is lost (RemoteFilesSilent if only the SFTP server does
not respond), RemoteFileMissing and RemoteFileError (permission, no space, ...). `progress(done_bytes,
total_bytes)` may raise an exception, which aborts the transfer and is passed on. While no data moves, it is
called twice a second with its last arguments. `on_wait()` is called in the same way, and may raise too.
Errors of local files: FileRefused (the file to upload), StoreError (the file to download to).
"""

import hashlib
import logging
import posixpath
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import paramiko
from paramiko.sftp import SFTPError

from comfyui_workflow.errors import (
    ConnectionFailed,
    RemoteFileError,
    RemoteFileExists,
    RemoteFileMissing,
    RemoteFileNotWritten,
    RemoteFilesSilent,
    Stopped,
    WorkflowError,
)
from comfyui_workflow.files.partial_files import LocalPart
from comfyui_workflow.ssh.sftp.channels import SftpChannels
from comfyui_workflow.ssh.sftp.download import (
    READ_BYTES,
    Progress,
    Source,
    in_flight_bytes,
    opening,
    receive,
)
from comfyui_workflow.ssh.sftp.session import MOST_ENTRIES, READING, Attributes, SftpSession
from comfyui_workflow.ssh.sftp.upload import Helpers, Sent, send

_LOGGER = logging.getLogger(__name__)

# SFTP gives times in whole seconds: a file younger than this may change again with the same time and size.
# The hash of such a file is not cached.
MIN_CACHEABLE_AGE_S = 3.0

# With a long round trip, one session sends at most one window of sshd per round trip.
MOST_HELPERS = 5

# Time limit for the removal of the partial file after a failed upload.
CLEANUP_TIMEOUT_S = 2.0

_WRITING = ("written", "made")
"""Participles of the operations that need permission and space on the disk."""

OnWait = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """Attributes of a remote file. `modified_at` is UTC, in whole seconds, by the instance's clock."""

    name: str
    size_bytes: int
    modified_at: datetime
    is_directory: bool


class RemoteFiles:
    """See the module. Paths are paths of the instance; relative paths start at the user's home directory."""

    def __init__(self, channels: SftpChannels, label: str) -> None:
        self._channels = channels
        self._label = label
        self._hashes: dict[tuple[str, int, datetime], str] = {}
        self._hashes_lock = threading.Lock()

    @property
    def transfers_at_once(self) -> int:
        """Number of threads that can transfer at the same time without waiting for each other."""
        return self._channels.transfers_at_once

    def refusal(self, limit_s: float) -> str:
        """Returns what the machine printed in place of SFTP, as one line; empty if SFTP works. Waits at most
        `limit_s` for it."""
        return self._channels.refusal(limit_s)

    def stat(self, path: str, *, on_wait: OnWait | None = None) -> RemoteFile | None:
        return self.stat_all((path,), on_wait=on_wait)[0]

    def stat_all(self, paths: Sequence[str], *, on_wait: OnWait | None = None) -> list[RemoteFile | None]:
        """Returns the attributes of each path, None for one that does not exist."""
        with self._session(", ".join(paths), "looked at", on_wait=on_wait) as session:
            requests = [(path, session.stat(path)) for path in paths]
            return [_described_if_there(session, path, number) for path, number in requests]

    def list(self, path: str) -> tuple[RemoteFile, ...]:
        """Lists a directory, sorted by name. Raises: RemoteFileError if it has more than 100,000 entries."""
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
        """Uploads a file under a temporary name beside `remote`, then renames it: a file named `remote` is
        always complete."""
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

    @contextmanager
    def opening(self, remote: str, *, progress: Progress | None = None) -> Iterator["OpeningFile"]:
        """Opens a file for reading, and does not wait for it: within the block, other work can be done before
        the file is used. That work may raise a WorkflowError, and no OSError."""
        report = _Reporter(progress or _no_progress)
        with self._session(remote, "read", report=report) as session, opening(session, remote) as opened:
            yield OpeningFile(remote, opened, partial(self._receive, session, remote, report=report))

    def fetch(
        self,
        remote: str,
        part: LocalPart,
        *,
        expected_size: int | None = None,
        progress: Progress | None = None,
    ) -> RemoteFile:
        """Downloads a file into `part`. Returns the attributes of the file after its last byte was read."""
        with self.opening(remote, progress=progress) as file:
            return file.fetch(part, expected_size=expected_size)

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

    def read(self, path: str, most_bytes: int) -> bytes:
        """Returns the beginning of a file, at most `most_bytes`. Reads until the end, whatever size the file
        claims to have: those in /proc claim 0."""
        content = bytearray()
        with self._session(path, "read") as session:
            handle = session.handle(session.open(path, READING))
            while len(content) < most_bytes:
                piece = session.data(session.read(handle, len(content), READ_BYTES))
                if not piece:
                    break
                content += piece
            session.abandon(session.close_file(handle))
        return bytes(content[:most_bytes])

    def sha256(self, remote: str, *, found: RemoteFile | None = None, on_wait: OnWait | None = None) -> str:
        """Computes the SHA-256 of the current content, in hex. The result is cached until the file changes.
        `found`: attributes that were read just now."""
        found = found or self.stat(remote, on_wait=on_wait)
        if found is None:
            raise RemoteFileMissing(f"{remote} is not on {self._label}.")
        key = (remote, found.size_bytes, found.modified_at)
        with self._hashes_lock:
            known = self._hashes.get(key)
        return known or self._hash(key, on_wait or _noop)

    def make_directory(self, path: str) -> None:
        with self._session(path, "made") as session:
            _make_directory(session.client, posixpath.normpath(path))

    def remove(self, path: str, *, on_wait: OnWait | None = None) -> None:
        with self._session(path, "removed", on_wait=on_wait) as session:
            try:
                session.wait(session.remove(path))
            except FileNotFoundError:
                return

    def _hash(self, key: tuple[str, int, datetime], on_wait: OnWait) -> str:
        remote, size_bytes, modified_at = key
        digest = hashlib.sha256()
        report = _Reporter(lambda _done_bytes, _total_bytes: on_wait())
        with (
            self._session(remote, "read", report=report) as session,
            opening(session, remote) as opened,
        ):
            source = opened()
            _check_size(remote, source.size_bytes, size_bytes)
            self._receive(session, remote, source, digest.update, report=report)
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
        *,
        report: Progress,
        start: int = 0,
    ) -> None:
        """Receives a file into `sink`. Raises: RemoteFileError if the file changed meanwhile."""
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
        """Removes the temporary file of a failed upload. On a dead connection the file stays; no other upload
        uses its name."""
        until_s = time.monotonic() + CLEANUP_TIMEOUT_S

        def on_wait() -> None:
            if time.monotonic() > until_s:
                raise Stopped("the removal takes too long")

        try:
            self.remove(part, on_wait=on_wait)
        except WorkflowError as error:
            _LOGGER.info("The temporary file of an upload is left on %s: %s", self._label, error)

    @contextmanager
    def _session(
        self, path: str, action: str, *, report: "_Reporter | None" = None, on_wait: OnWait | None = None
    ) -> Iterator[SftpSession]:
        """Leases a session for one operation, which is a transfer if `report` is given. Converts the errors
        of paramiko and of the system to WorkflowErrors. `action` is a participle for their sentences."""
        on_wait = report.repeat if report else on_wait or _noop
        try:
            with self._channels.lease(is_transfer=report is not None, while_waiting=on_wait) as session:
                session.on_wait = on_wait
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
        elif reason == "Failure" and action in _WRITING:
            reason = "the instance does not say why (is its disk full?)"
        kind = RemoteFileNotWritten if action in _WRITING else RemoteFileError
        return kind(f"{path} cannot be {action} on {self._label}: {reason}.")


class OpeningFile:
    """A file that is being opened. For the thread that opens it. The methods raise: as those of
    RemoteFiles."""

    def __init__(self, remote: str, opened: Callable[[], Source], receive: Callable[..., None]) -> None:
        self._remote = remote
        self._opened = opened
        self._receive = receive

    def attributes(self) -> RemoteFile:
        """Returns the attributes of the file when it was opened."""
        return _describe(posixpath.basename(self._remote), _attributes_of(self._opened()))

    def fetch(self, part: LocalPart, *, expected_size: int | None = None) -> RemoteFile:
        """Downloads the file into `part`. Returns its attributes after its last byte was read."""
        source = self._opened()
        if expected_size is not None:
            _check_size(self._remote, source.size_bytes, expected_size)
        start = part.begin(source.size_bytes, version_of(source.size_bytes, source.modified_s))
        self._receive(source, part.write, start=start)
        return self.attributes()


class _Reporter:
    """Calls `progress`, and can repeat the last call."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._last = (0, 0)

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        self._last = (done_bytes, total_bytes)
        self._progress(done_bytes, total_bytes)

    def repeat(self) -> None:
        self._progress(*self._last)


def version_of(size_bytes: int, modified_s: int) -> str:
    """Returns a version of a file, from its size and time. It changes if the file changes, as far as SFTP can
    show that."""
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


def _described_if_there(session: SftpSession, path: str, stat_request: int) -> RemoteFile | None:
    try:
        return _describe(posixpath.basename(path), session.attributes(stat_request))
    except FileNotFoundError:
        return None


def _check_size(remote: str, size_bytes: int | None, expected_bytes: int) -> None:
    if size_bytes != expected_bytes:
        raise RemoteFileError(
            f"{remote} has {size_bytes} bytes instead of {expected_bytes}: it was changed or cut short."
        )


def _finish_upload(session: SftpSession, sent: Sent, part: str, remote: str) -> None:
    """Checks the sent file and renames it. By the protocol a rename to an existing file fails, but some
    servers overwrite; so the target is checked before.

    Raises: RemoteFileExists; RemoteFileError if the size is wrong; OSError."""
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
    """Waits for the response to an lstat request. True if the path exists, also as a dangling symlink."""
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
        if not _is_directory(client, path):  # another client may have made it meanwhile
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
