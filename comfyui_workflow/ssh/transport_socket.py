"""The byte stream under a transport, with an ear: what arrived, and when nothing does.

paramiko reads it from one thread, and looks up from reading ten times a second.
"""

import contextlib
import errno
import socket
from collections.abc import Callable

import paramiko

TCP_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux has it

# OpenSSH takes packets of 256 KiB at most; paramiko would take 4 GiB, and have them in memory.
LARGEST_PACKET_BYTES = 1024 * 1024
# Of the greeting, which may have any number of lines, and the key exchange.
MOST_HANDSHAKE_BYTES = 256 * 1024


class TransportSocket:
    """What paramiko asks of a socket, over a socket or over a channel of another transport (a jump).

    `uses_quick_ack`: until a session runs on the connection, sshd holds a small packet back until the
    one before is acknowledged (Nagle's algorithm), and a kernel puts that off for 40 ms: more than all the
    work of a login.
    """

    def __init__(self, stream: socket.socket | paramiko.Channel, *, close: Callable[[], None]) -> None:
        self._stream = stream
        self._close = close
        self.received_count = 0
        self.handshake_bytes_left: int | None = MOST_HANDSHAKE_BYTES  # None once it is over
        self.uses_quick_ack = True
        self.on_recv_timeout: Callable[[], None] | None = None  # called by the reading thread; may send

    def recv(self, size_bytes: int) -> bytes:
        """Raises: ConnectionAbortedError where paramiko asks for more than a packet may have, as the peer
        announced it; and for a greeting without end."""
        if size_bytes > LARGEST_PACKET_BYTES:
            raise _protocol_error(f"it announces a packet of {size_bytes} bytes")
        if self.uses_quick_ack:
            _set_quick_ack(self._stream)
        try:
            data = self._stream.recv(size_bytes)
        except TimeoutError:
            if self.on_recv_timeout:
                self.on_recv_timeout()
            raise
        self.received_count += 1
        if self.handshake_bytes_left is not None:
            self.handshake_bytes_left -= len(data)
            if self.handshake_bytes_left < 0:
                raise _protocol_error(f"it sends more than {MOST_HANDSHAKE_BYTES} bytes before it is known")
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


def _protocol_error(reason: str) -> ConnectionAbortedError:
    return ConnectionAbortedError(errno.EPROTO, reason)


def _set_quick_ack(stream: socket.socket | paramiko.Channel) -> None:
    """The kernel forgets it after a while."""
    if TCP_QUICKACK is not None and isinstance(stream, socket.socket):
        with contextlib.suppress(OSError):  # the stream is gone: the next read says so
            stream.setsockopt(socket.IPPROTO_TCP, TCP_QUICKACK, 1)


def wire_over_socket(stream: socket.socket) -> TransportSocket:
    def close() -> None:
        # The shutdown wakes up a thread that reads; close alone would leave it to its timeout.
        with contextlib.suppress(OSError):
            stream.shutdown(socket.SHUT_RDWR)
        stream.close()

    return TransportSocket(stream, close=close)


def wire_over_jump(channel: paramiko.Channel, jump: paramiko.Transport) -> TransportSocket:
    """The jump serves this wire alone. Closing a channel would talk to the peer, which may be frozen."""
    return TransportSocket(channel, close=jump.close)
