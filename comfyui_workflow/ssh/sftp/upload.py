"""Uploads the bytes of one file, with one SFTP session or with several in parallel.

send(session, local, remote, progress, helpers) -> Sent(handle, size_bytes, pending)

How it works: a server accepts a limited amount of data per session and round trip. With a long round trip,
several sessions therefore write chunks of the same file, each chunk at its offset. The first session creates
the file; helper threads lease further sessions and take chunks until none is left.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import paramiko

from comfyui_workflow.errors import FileRefused, Stopped, WorkflowError
from comfyui_workflow.ssh.sftp.download import Progress
from comfyui_workflow.ssh.sftp.session import NEW_AND_WRITING, WRITING, SftpSession

_LOGGER = logging.getLogger(__name__)

# A write and its header fit into one SSH packet, which OpenSSH limits to 32 KiB.
WRITE_BYTES = 32_600
# Number of writes that sshd accepts for one session before the client must wait for responses.
MOST_PENDING_WRITES = 64
# Bytes that a session takes at a time if there are several: enough to be worth it for a helper that joins
# late.
CHUNK_BYTES = 64 * WRITE_BYTES

# A smaller file is sent completely before a helper has a session.
LARGE_BYTES = 8 * 1024 * 1024
WAKE_UP_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Helpers:
    """Sessions that help to upload a large file.

    `count` is their maximum number. `lease` leases one, and calls its argument while it waits for one."""

    count: int
    lease: Callable[[Callable[[], None]], AbstractContextManager[SftpSession]]


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A sent file. `pending` are the numbers of the writes that have no response yet."""

    handle: bytes
    size_bytes: int
    pending: deque[int]


class NothingLeftToSend(Exception):
    """Raised in a helper if no chunk is left to send."""


def send(session: SftpSession, local: Path, remote: str, progress: Progress, helpers: Helpers) -> Sent:
    """Sends a local file to a new remote file, which must not exist.

    Raises: FileRefused if the local file cannot be read or became shorter; errors of the session, of
    `progress` and of the helpers."""
    with _opened(local) as file:
        size_bytes = os.fstat(file).st_size
        handle = session.handle(session.open(remote, NEW_AND_WRITING))
        work = _Work(local, file, size_bytes)

        def report() -> None:
            progress(work.sent_bytes, size_bytes)

        report()
        with _with_helpers(work, remote, helpers):
            pending = work.send_chunks(session, handle, report)
            while not work.wait_for_helpers(WAKE_UP_S):
                report()
        report()
    return Sent(handle=handle, size_bytes=size_bytes, pending=pending)


class _Work:
    """The part of one file that is still to be sent, handed out in chunks. Thread-safe."""

    def __init__(self, local: Path, file: int, size_bytes: int) -> None:
        self._local = local
        self._file = file
        self.size_bytes = size_bytes
        self._changed = threading.Condition()
        self._next_offset = 0
        self._helper_count = 0
        self._failure: BaseException | None = None
        self._is_aborted = False
        self.sent_bytes = 0

    def send_chunks(self, session: SftpSession, handle: bytes, after_each: Callable[[], None]) -> deque[int]:
        """Sends chunks until none is left. Returns the numbers of the writes that have no response yet."""
        pending: deque[int] = deque()
        while chunk := self._next_chunk():
            for offset in range(chunk.start, chunk.stop, WRITE_BYTES):
                data = self._read(offset, min(WRITE_BYTES, chunk.stop - offset))
                pending.append(session.write(handle, offset, data))
                with self._changed:
                    self.sent_bytes += len(data)
                after_each()
                if len(pending) > MOST_PENDING_WRITES:
                    session.wait(pending.popleft())
        return pending

    @contextmanager
    def registered_helper(self) -> Iterator[None]:
        """Registers a helper. Its error stops the whole upload.

        Raises: NothingLeftToSend if no chunk is left."""
        self.raise_if_done()
        with self._changed:
            self._helper_count += 1
        try:
            yield
        except BaseException as error:
            self.stop(error)
            raise
        finally:
            with self._changed:
                self._helper_count -= 1
                self._changed.notify_all()

    def raise_if_done(self) -> None:
        with self._changed:
            if self._next_offset >= self.size_bytes:
                raise NothingLeftToSend

    def wait_for_helpers(self, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._helper_count == 0, timeout_s)

    def stop(self, failure: BaseException | None = None) -> None:
        """Hands out no more chunks. A chunk that is being sent is completed."""
        with self._changed:
            self._next_offset = self.size_bytes
            self._failure = self._failure or failure

    def abort(self) -> None:
        """Makes the helpers stop at their next wait: their responses are not needed any more."""
        self._is_aborted = True

    def raise_if_aborted(self) -> None:
        if self._is_aborted:
            raise Stopped("the upload was given up")

    def raise_failure(self) -> None:
        if self._failure:
            raise self._failure

    def _next_chunk(self) -> range:
        with self._changed:
            start = self._next_offset
            self._next_offset = min(start + CHUNK_BYTES, self.size_bytes)
            return range(start, self._next_offset)

    def _read(self, offset: int, size_bytes: int) -> bytes:
        try:
            data = os.pread(self._file, size_bytes, offset)
        except OSError as error:
            raise _unreadable(self._local, error) from error
        if len(data) < size_bytes:
            raise FileRefused(f"{self._local} became shorter while it was sent.")
        return data


@contextmanager
def _with_helpers(work: _Work, remote: str, helpers: Helpers) -> Iterator[None]:
    """Runs the helpers of a large file during the `with` block. Raises: the error of a helper."""
    for _ in range(helpers.count if work.size_bytes > LARGE_BYTES else 0):
        arguments = (work, remote, helpers)
        threading.Thread(target=_run_helper, args=arguments, name="upload helper", daemon=True).start()
    try:
        yield
    except BaseException:
        work.abort()
        raise
    finally:
        work.stop()
        while not work.wait_for_helpers(WAKE_UP_S):
            pass  # helpers end by themselves, at the latest at the silence timeout of their channel
    work.raise_failure()


def _run_helper(work: _Work, remote: str, helpers: Helpers) -> None:
    """Sends chunks with a leased session, if any chunk is left when the session is available."""
    try:
        with helpers.lease(work.raise_if_done) as session, work.registered_helper():
            session.on_wait = work.raise_if_aborted
            handle = session.handle(session.open(remote, WRITING))
            for number in work.send_chunks(session, handle, _noop):
                session.wait(number)
            session.wait(session.close_file(handle))
    except NothingLeftToSend:
        return
    except (WorkflowError, paramiko.SSHException, EOFError, OSError) as error:
        # If the helper had sent chunks, `registered_helper` has stopped the upload with this error.
        _LOGGER.info("A helper of an upload gave up: %r", error)


@contextmanager
def _opened(local: Path) -> Iterator[int]:
    try:
        file = os.open(local, os.O_RDONLY)
    except OSError as error:
        raise _unreadable(local, error) from error
    try:
        yield file
    finally:
        os.close(file)


def _unreadable(local: Path, error: OSError) -> FileRefused:
    return FileRefused(f"Cannot read {local}: {error.strerror}.")


def _noop() -> None:
    pass
