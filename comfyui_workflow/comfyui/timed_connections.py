"""Connections of urllib3 with a time limit for a whole response: used by `requests` towards instances, and
directly by our own client.

How it works. A read timeout alone never fires if the peer sends one byte now and then. So the time of a whole
response is counted where its bytes are read, below the HTTP parser: header lines and `100 Continue` count,
too. Only the time in reads counts, each read at most with its own timeout, so a pause of this process is not
counted. A streamed file is limited by its average rate instead.
"""

import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPResponse
from time import monotonic
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from comfyui_workflow.errors import WorkflowError

_SENT_AT_ONCE_BYTES = 256 * 1024
_SEND_TIMEOUT_S = 30.0
"""For each piece of _SENT_AT_ONCE_BYTES."""
_this_thread = threading.local()


class AnswerClock:
    """The time that is left for one response. Belongs to the thread that makes the request.

    `overdue` is raised when no time is left; no part of the HTTP stack catches this class as an error of its
    own. With `bytes_per_s`, every byte that arrives gives time back at this rate, up to `limit_s`; without
    it, `limit_s` is the limit for the whole response.
    """

    def __init__(self, limit_s: float, overdue: WorkflowError, *, bytes_per_s: float | None = None) -> None:
        self._overdue = overdue
        self._limit_s = self._left_s = limit_s
        self._bytes_per_s = bytes_per_s

    def timeout_s(self, read_timeout_s: float) -> float:
        """Returns the timeout for the next read. Raises: `overdue` if no time is left."""
        self.check()
        return min(read_timeout_s, self._left_s)

    def spend(self, seconds: float, read_bytes: int) -> None:
        self._left_s -= seconds
        if self._bytes_per_s is not None:
            self._left_s = min(self._limit_s, self._left_s + read_bytes / self._bytes_per_s)

    def check(self) -> None:
        """Raises: `overdue`."""
        if self._left_s <= 0:
            raise self._overdue


@contextmanager
def timed_by(clock: AnswerClock) -> Iterator[None]:
    """Responses to requests that this thread makes inside the block are read with this clock, also after the
    block."""
    _this_thread.clock = clock
    try:
        yield
    finally:
        _this_thread.clock = None


class _TimedRead(io.RawIOBase):
    def __init__(self, sock: socket.socket, clock: AnswerClock, read_timeout_s: float | None) -> None:
        super().__init__()
        self._sock = sock
        self._inner = sock.makefile("rb", buffering=0)
        self._clock = clock
        self._read_timeout_s = self._current_timeout_s = read_timeout_s or _SEND_TIMEOUT_S

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        timeout_s = self._clock.timeout_s(self._read_timeout_s)
        if timeout_s != self._current_timeout_s:
            self._sock.settimeout(timeout_s)
            self._current_timeout_s = timeout_s
        began_s, count = monotonic(), 0
        try:
            count = self._inner.readinto(buffer) or 0
        except TimeoutError:
            self._clock.spend(timeout_s, 0)
            self._clock.check()
            raise
        self._clock.spend(min(monotonic() - began_s, timeout_s), count)
        return count

    def close(self) -> None:
        self._inner.close()
        super().close()


class _TimedSocket:
    """The part of the socket interface that HTTPResponse uses."""

    def __init__(self, sock: socket.socket, clock: AnswerClock, read_timeout_s: float | None) -> None:
        self._read = _TimedRead(sock, clock, read_timeout_s)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._read)


def _timed_response(
    clock: AnswerClock, read_timeout_s: float | None, sock: socket.socket, *arguments: Any, **options: Any
) -> HTTPResponse:
    return HTTPResponse(_TimedSocket(sock, clock, read_timeout_s), *arguments, **options)  # type: ignore[arg-type]


class _Timed(HTTPConnection):
    def getresponse(self) -> Any:
        clock: AnswerClock | None = getattr(_this_thread, "clock", None)
        if clock is not None:
            timeout_s = self.timeout if isinstance(self.timeout, float | int) else None
            self.response_class = partial(_timed_response, clock, timeout_s)  # type: ignore[assignment]
        return super().getresponse()

    def send(self, data: Any) -> None:
        """Sends long data in pieces, each with a timeout of its own: a slow connection is not a dead one."""
        if not isinstance(data, bytes | bytearray | memoryview) or len(data) <= _SENT_AT_ONCE_BYTES:
            super().send(data)
            return
        self.sock.settimeout(_SEND_TIMEOUT_S)
        view = memoryview(data)
        for start in range(0, len(view), _SENT_AT_ONCE_BYTES):
            super().send(view[start : start + _SENT_AT_ONCE_BYTES])


class _TimedHttps(_Timed, HTTPSConnection):
    pass


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Timed


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TimedHttps


TIMED_POOLS = {"http": _HttpPool, "https": _HttpsPool}
"""For the attribute `pool_classes_by_scheme` of a pool manager."""
