"""Connections to addresses that were checked before, with a deadline for the whole exchange."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from urllib3.connection import HTTPConnection, HTTPSConnection

from comfyui_workflow.safe_http.addresses import Endpoint
from comfyui_workflow.safe_http.urls import Target


class ExchangeDeadline:
    """Time limit of one whole HTTP exchange. At the end of the time a timer shuts the socket down, whatever
    the thread waits for: read timeouts alone do not stop a server that sends one byte now and then."""

    def __init__(self, timeout_s: float) -> None:
        self._until_s = time.monotonic() + timeout_s
        self._timer = threading.Timer(timeout_s, self._cut)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_over = False

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._release()

    @property
    def is_over(self) -> bool:
        return self._is_over

    def left_s(self) -> float:
        """Returns the remaining time. Raises: TimeoutError if none is left."""
        left_s = self._until_s - time.monotonic()
        if left_s <= 0 or self._is_over:
            raise TimeoutError
        return left_s

    def attach(self, opened: socket.socket) -> None:
        """Sets the socket that the timer shuts down; replaces the previous one. Keeps a duplicate of the
        descriptor, since TLS takes over the original. Raises: TimeoutError."""
        self._release()
        with self._lock:
            self._socket = opened.dup()
        self.left_s()

    def extend(self, timeout_s: float) -> None:
        """Starts the time again. Raises: TimeoutError if it is over."""
        self.left_s()
        self._timer.cancel()
        self._until_s = time.monotonic() + timeout_s
        self._timer = threading.Timer(timeout_s, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def _cut(self) -> None:
        with self._lock:
            self._is_over = True
            if self._socket is not None:
                _shut_down(self._socket)

    def _release(self) -> None:
        with self._lock:
            held, self._socket = self._socket, None
        if held is not None:
            held.close()


def open_http(
    target: Target, endpoints: Sequence[Endpoint], deadline: ExchangeDeadline, tls: ssl.SSLContext
) -> HTTPConnection:
    """Returns a connection that is not connected yet. The host name of the URL stays in the Host header,
    in TLS (SNI) and in the certificate check; only the socket goes to a checked address. Raises:
    TimeoutError."""
    connection: _PinnedHttp | _PinnedHttps
    if target.is_encrypted:
        connection = _PinnedHttps(target.host, target.port, timeout=deadline.left_s(), ssl_context=tls)
    else:
        connection = _PinnedHttp(target.host, target.port, timeout=deadline.left_s())
    connection.open_socket = lambda: _open_first(endpoints, deadline)
    return connection


class _Pinned:
    open_socket: Callable[[], socket.socket]

    def _new_conn(self) -> socket.socket:
        """Overrides the method of urllib3 that would resolve the name a second time."""
        return self.open_socket()


class _PinnedHttp(_Pinned, HTTPConnection):
    pass


class _PinnedHttps(_Pinned, HTTPSConnection):
    pass


def _open_first(endpoints: Sequence[Endpoint], deadline: ExchangeDeadline) -> socket.socket:
    """Connects to the first endpoint that accepts. The remaining time is divided among the remaining
    endpoints, so a silent one does not use up all of it."""
    for number, endpoint in enumerate(endpoints):
        others = len(endpoints) - number
        try:
            return _open(endpoint, deadline, deadline.left_s() / others)
        except OSError:
            if others == 1 or deadline.is_over:
                raise
    raise OSError("no address")


def _open(endpoint: Endpoint, deadline: ExchangeDeadline, timeout_s: float) -> socket.socket:
    opened = socket.socket(endpoint.family, socket.SOCK_STREAM)
    try:
        opened.settimeout(timeout_s)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        deadline.attach(opened)
        opened.connect(endpoint.address)
        opened.settimeout(deadline.left_s())
    except BaseException:
        opened.close()
        raise
    return opened


def _shut_down(held: socket.socket) -> None:
    try:
        held.shutdown(socket.SHUT_RDWR)
    except OSError:  # not connected yet, or closed already
        return
