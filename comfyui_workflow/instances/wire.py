"""The byte stream under a transport, with an ear: what arrived, and when nothing does.

paramiko reads it from one thread, and looks up from reading ten times a second.
"""

import contextlib
import socket
from collections.abc import Callable

import paramiko


class Wire:
    """What paramiko asks of a socket, over a socket or over a channel of another transport (a jump)."""

    def __init__(self, stream: socket.socket | paramiko.Channel, *, close: Callable[[], None]) -> None:
        self._stream = stream
        self._close = close
        self.heard_count = 0
        self.on_quiet: Callable[[], None] | None = None  # called by the reading thread; may send

    def recv(self, size_bytes: int) -> bytes:
        try:
            data = self._stream.recv(size_bytes)
        except TimeoutError:
            if self.on_quiet:
                self.on_quiet()
            raise
        self.heard_count += 1
        return data

    def send(self, data: bytes) -> int:
        return self._stream.send(data)

    def settimeout(self, timeout_s: float | None) -> None:
        self._stream.settimeout(timeout_s)

    def getpeername(self) -> object:
        return self._stream.getpeername()

    def close(self) -> None:
        """Wakes up whoever reads or writes. Never blocks."""
        self._close()

    @property
    def _closed(self) -> bool:
        """paramiko looks at this attribute of sockets before it waits for its thread."""
        return bool(self._stream._closed)  # type: ignore[union-attr]


def wire_over_socket(stream: socket.socket) -> Wire:
    def close() -> None:
        # The shutdown wakes up a thread that reads; close alone would leave it to its timeout.
        with contextlib.suppress(OSError):
            stream.shutdown(socket.SHUT_RDWR)
        stream.close()

    return Wire(stream, close=close)


def wire_over_jump(channel: paramiko.Channel, jump: paramiko.Transport) -> Wire:
    """The jump serves this wire alone. Closing a channel would talk to the peer, which may be frozen."""
    return Wire(channel, close=jump.close)
