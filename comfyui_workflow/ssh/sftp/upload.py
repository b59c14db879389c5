"""The bytes of one file on their way up, by one session or by several at once.

send(session, local, remote, progress, helpers) -> Sent(handle, size_bytes, under_way)

A server takes in so much at a time for each session, and then a round trip passes: far away, several sessions
write parts of one file, each where it belongs.
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

# A write and its header fit one SSH packet, which OpenSSH limits to 32 KiB.
WRITE_BYTES = 32_600
# What sshd takes in for one session before it wants to be waited for.
MOST_PENDING_WRITES = 64
# What one session takes at a time when there are several: large enough to be worth it for who comes late.
CHUNK_BYTES = 64 * WRITE_BYTES

# Less than this is sent before help has arrived.
LARGE_BYTES = 8 * 1024 * 1024
WAKE_UP_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Helpers:
    """So many sessions may take part in sending a large file. `lease` lends one, and calls what it is given
    while it waits."""

    count: int
    lease: Callable[[Callable[[], None]], AbstractContextManager[SftpSession]]


@dataclass(frozen=True, kw_only=True)
class Sent:
    """`pending` are the writes whose answers are to be waited for."""

    handle: bytes
    size_bytes: int
    pending: deque[int]


class NothingLeftToSend(Exception):
    """A helper found its work done by others."""


def send(session: SftpSession, local: Path, remote: str, progress: Progress, helpers: Helpers) -> Sent:
    """Into a new file."""
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
    """What is to be sent of one file, handed out share by share."""

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
        """Sends shares until none is left. Returns the writes that are not answered yet."""
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
        """What a helper fails at, fails for all."""
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
        """Nothing more is begun; what is under way ends by itself."""
        with self._changed:
            self._next_offset = self.size_bytes
            self._failure = self._failure or failure

    def abort(self) -> None:
        """Nobody waits for an answer any more."""
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
    """Raises: what a helper failed at."""
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
            pass  # they give up by themselves, at the latest when their channel has been silent for too long
    work.raise_failure()


def _run_helper(work: _Work, remote: str, helpers: Helpers) -> None:
    """Joins as soon as there is a session, if by then something is left to do."""
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
        _LOGGER.info(
            "A helper of an upload gave up: %r", error
        )  # what it had begun, `registered_helper` has told


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
