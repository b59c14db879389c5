"""Connections that go to the very addresses that were checked, and end when their time is over."""

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
    """The time that one exchange may take in all. When it is over its socket is cut, whatever it waits for: a
    server that sends a byte now and then keeps nobody."""

    def __init__(self, timeout_s: float) -> None:
        self._until_s = time.monotonic() + timeout_s
        self._timer = threading.Timer(timeout_s, self._cut)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._held: socket.socket | None = None
        self._is_over = False

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._let_go()

    @property
    def is_over(self) -> bool:
        return self._is_over

    def left_s(self) -> float:
        """Raises: TimeoutError."""
        left_s = self._until_s - time.monotonic()
        if left_s <= 0 or self._is_over:
            raise TimeoutError
        return left_s

    def hold(self, opened: socket.socket) -> None:
        """In place of the one before. By a descriptor of its own: TLS takes over the other one."""
        self._let_go()
        with self._lock:
            self._held = opened.dup()
        self.left_s()

    def _cut(self) -> None:
        with self._lock:
            self._is_over = True
            if self._held is not None:
                _shut(self._held)

    def _let_go(self) -> None:
        with self._lock:
            held, self._held = self._held, None
        if held is not None:
            held.close()


def open_http(
    target: Target, endpoints: Sequence[Endpoint], leash: ExchangeDeadline, tls: ssl.SSLContext
) -> HTTPConnection:
    """Not connected yet. It says the host of the URL wherever a host is said, in TLS too; only its socket is
    ours. Raises: TimeoutError."""
    connection: _PinnedHttp | _PinnedHttps
    if target.is_encrypted:
        connection = _PinnedHttps(target.host, target.port, timeout=leash.left_s(), ssl_context=tls)
    else:
        connection = _PinnedHttp(target.host, target.port, timeout=leash.left_s())
    connection.open_socket = lambda: _open_first(endpoints, leash)
    return connection


class _Pinned:
    open_socket: Callable[[], socket.socket]

    def _new_conn(self) -> socket.socket:
        """Here urllib3 would ask for the addresses of the name once more."""
        return self.open_socket()


class _PinnedHttp(_Pinned, HTTPConnection):
    pass


class _PinnedHttps(_Pinned, HTTPSConnection):
    pass


def _open_first(endpoints: Sequence[Endpoint], leash: ExchangeDeadline) -> socket.socket:
    """The first that answers. Each gets its share of the time, so that a silent one leaves some to the
    others."""
    for number, endpoint in enumerate(endpoints):
        others = len(endpoints) - number
        try:
            return _open(endpoint, leash, leash.left_s() / others)
        except OSError:
            if others == 1 or leash.is_over:
                raise
    raise OSError("no address")


def _open(endpoint: Endpoint, leash: ExchangeDeadline, timeout_s: float) -> socket.socket:
    opened = socket.socket(endpoint.family, socket.SOCK_STREAM)
    try:
        opened.settimeout(timeout_s)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        leash.hold(opened)
        opened.connect(endpoint.address)
        opened.settimeout(leash.left_s())
    except BaseException:
        opened.close()
        raise
    return opened


def _shut(held: socket.socket) -> None:
    try:
        held.shutdown(socket.SHUT_RDWR)
    except OSError:  # not connected, or not any more
        return
