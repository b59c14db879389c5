"""HTTP to an instance with limits on each answer: a `requests` session whose connections time every read.

How it works. A read timeout alone never fires on a peer that sends a byte now and then, so the time of a
whole answer is counted where its bytes are read, beneath the HTTP parser: header lines and `100 Continue`
count too. Only the time spent in reads counts, each read at most with its own timeout, so a pause of this
process is not the peer's fault. A streamed file is bounded by its average rate instead. Nothing compressed is
asked for, and nothing compressed is taken: so a few bytes stay a few bytes.
"""

import gc
import io
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPResponse
from http.cookiejar import DefaultCookiePolicy
from time import monotonic
from typing import IO, Any

import requests
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from comfyui_workflow.comfyui.limits import (
    BYTES_WORTH_COUNTING,
    InstanceLimits,
    is_encoded,
    too_many_bytes,
    too_many_values,
    value_count,
)
from comfyui_workflow.errors import StoreError, WorkflowError
from comfyui_workflow.parsing.untrusted import read_json

_PIECE_BYTES = 64 * 1024
_KEPT_IN_MEMORY_BYTES = 4 * 1024 * 1024
_SENT_AT_ONCE_BYTES = 256 * 1024
_SEND_TIMEOUT_S = 30.0
"""For each piece of so many bytes."""
_WIDEST_CHARACTER_BYTES = 4
_parsing = threading.Lock()
"""Large answers become objects one at a time, so that the memory for that is needed once, however many
instances there are."""
_this_thread = threading.local()


class AnswerClock:
    """The time that is left for one answer. Belongs to the thread that asks.

    `overdue` is raised when none is left: no part of the HTTP stack takes it for trouble of its own.
    `bytes_per_s`: every byte that arrives gives time back at this rate, up to `limit_s`; without it `limit_s`
    is for all of the answer.
    """

    def __init__(self, limit_s: float, overdue: WorkflowError, *, bytes_per_s: float | None = None) -> None:
        self._overdue = overdue
        self._limit_s = self._left_s = limit_s
        self._bytes_per_s = bytes_per_s

    def timeout_s(self, read_timeout_s: float) -> float:
        """For the next read. Raises: `overdue` when nothing is left."""
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
    """What this thread asks for meanwhile is read by this clock, also afterwards."""
    _this_thread.clock = clock
    try:
        yield
    finally:
        _this_thread.clock = None


class InstanceSession(requests.Session):
    """Follows no redirect, and does not read the body of one."""

    def __init__(self, *, takes_cookies: bool) -> None:
        super().__init__()
        self.headers["Accept-Encoding"] = "identity"
        if not takes_cookies:  # they would pile up, and be sent along
            self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None


class TimedAdapter(requests.adapters.HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        if type(manager) is urllib3.ProxyManager:
            manager.pool_classes_by_scheme = _POOLS
        return manager


class Body:
    """The bytes of one answer: in memory, or in a file without a name where there are many."""

    def __init__(self, content: bytes | IO[bytes]) -> None:
        self.values = 0
        """How many JSON values there are at most, once it was read; 0 for few."""
        self._content = content

    def beginning(self, most_bytes: int) -> bytes:
        if isinstance(self._content, bytes):
            return self._content[:most_bytes]
        self._content.seek(0)
        return self._content.read(most_bytes)

    def whole(self) -> bytes:
        return self._content if isinstance(self._content, bytes) else self.beginning(-1)

    def json(self, limits: InstanceLimits, where: str) -> Any:
        """Raises: LimitExceeded; ValueError for what is no JSON."""
        if isinstance(self._content, bytes) and len(self._content) < BYTES_WORTH_COUNTING:
            return read_json(self._content)
        with _parsing:
            content = self.whole()
            self.values = value_count(content)
            return _counted_json(content, limits.values, limits.answer_bytes, where)

    def close(self) -> None:
        if not isinstance(self._content, bytes):
            self._content.close()


def bounded_json(content: bytes, most_values: int, most_bytes: int, where: str) -> Any:
    """JSON that is counted before it becomes objects, long ones one at a time. `most_bytes` is of the text
    that it is decoded to; `where` ends the sentence of a broken limit.
    Raises: LimitExceeded; ValueError for what is no JSON."""
    if len(content) < BYTES_WORTH_COUNTING:
        return read_json(content)
    with _parsing:
        return _counted_json(content, most_values, most_bytes, where)


def _counted_json(content: bytes, most_values: int, most_bytes: int, where: str) -> Any:
    if value_count(content) > most_values:
        raise too_many_values(where, most_values)
    most_wide_bytes = most_bytes // _WIDEST_CHARACTER_BYTES
    if len(content) > most_wide_bytes and not content.isascii():
        raise too_many_bytes(f"{where}, in other characters than ASCII", most_wide_bytes)
    with _without_collecting():
        return read_json(content)


@contextmanager
def _without_collecting() -> Iterator[None]:
    """JSON has no cycles, and looking for them while it is read takes several times as long as reading it, in
    which no other thread runs. One at a time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def refuse_encoding(response: requests.Response, what: str) -> None:
    """Raises: LimitExceeded."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise is_encoded(what, encoding)


def read_body(response: requests.Response, most_bytes: int, most_values: int, where: str) -> Body:
    """To be closed. `where` ends the sentence of a broken limit.
    Raises: LimitExceeded; urllib3's HTTPError, http.client.HTTPException, OSError."""
    raw = response.raw
    announced = raw.length_remaining
    if announced is not None:
        if announced > most_bytes:
            raise too_many_bytes(where, most_bytes)
        if announced <= _KEPT_IN_MEMORY_BYTES:
            return Body(raw.read(decode_content=False))
    return _spooled(raw, most_bytes, most_values, where)


def _spooled(raw: Any, most_bytes: int, most_values: int, where: str) -> Body:
    file = tempfile.SpooledTemporaryFile(max_size=_KEPT_IN_MEMORY_BYTES)  # noqa: SIM115 - the body closes it
    try:
        count = values = 0
        while piece := raw.read(_PIECE_BYTES, decode_content=False):
            count += len(piece)
            if count > most_bytes:
                raise too_many_bytes(where, most_bytes)
            values += value_count(piece)
            if values > most_values:
                raise too_many_values(where, most_values)
            _keep(file, piece)
        if count <= _KEPT_IN_MEMORY_BYTES:
            file.seek(0)
            content = file.read()
            file.close()
            return Body(content)
    except BaseException:
        file.close()
        raise
    return Body(file)


def _keep(file: IO[bytes], piece: bytes) -> None:
    try:
        file.write(piece)
    except OSError as error:
        place = tempfile.gettempdir()
        raise StoreError(f"A long answer cannot be kept in {place}: {error.strerror}") from error


class _TimedRead(io.RawIOBase):
    def __init__(self, sock: socket.socket, clock: AnswerClock, read_timeout_s: float | None) -> None:
        super().__init__()
        self._sock = sock
        self._inner = sock.makefile("rb", buffering=0)
        self._clock = clock
        self._read_timeout_s = self._set_s = read_timeout_s or _SEND_TIMEOUT_S

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        timeout_s = self._clock.timeout_s(self._read_timeout_s)
        if timeout_s != self._set_s:
            self._sock.settimeout(timeout_s)
            self._set_s = timeout_s
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
    """What an HTTPResponse asks of a socket."""

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
        """Much of it in pieces, each with a timeout of its own: a slow way is no dead one."""
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


_POOLS = {"http": _HttpPool, "https": _HttpsPool}
