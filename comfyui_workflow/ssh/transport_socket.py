"""Byte stream under an SSH transport, which counts what it receives and reports silence.

paramiko reads the stream from one thread. Each read times out after a tenth of a second.
"""

import contextlib
import errno
import select
import socket
from collections.abc import Callable

import paramiko

TCP_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux has it

# OpenSSH accepts packets of at most 256 KiB. paramiko would accept 4 GiB and hold it in memory.
LARGEST_PACKET_BYTES = 1024 * 1024
# Limit for the server's greeting, which may have any number of lines, plus the key exchange.
MOST_HANDSHAKE_BYTES = 256 * 1024
READ_AHEAD_BYTES = 64 * 1024
BEGINNING_BYTES = 512


class TransportSocket:
    """The socket methods that paramiko calls, over a socket or over a channel of a jump host's transport.

    `uses_quick_ack`: until a session runs on the connection, sshd holds a small packet back until the
    packet before it is acknowledged (Nagle's algorithm). The kernel delays an acknowledgement by 40 ms,
    which is more than all the work of a login.
    """

    def __init__(self, stream: socket.socket | paramiko.Channel, *, close: Callable[[], None]) -> None:
        self._stream = stream
        self._close = close
        self._ahead = memoryview(bytearray(READ_AHEAD_BYTES))  # one: new ones would fragment the memory
        self._position = 0
        self._end = 0
        self.received_count = 0
        self.handshake_bytes_left: int | None = MOST_HANDSHAKE_BYTES  # None after the handshake
        self.beginning = bytearray()  # the first bytes that were received: they tell what is no SSH server
        self.uses_quick_ack = True
        self.on_recv_timeout: Callable[[], None] | None = None  # called by the reading thread; may send

    def recv(self, size_bytes: int) -> bytes:
        """Returns up to `size_bytes` bytes. Reads ahead: paramiko asks for the first bytes of each packet and
        then for the rest.

        Raises: ConnectionAbortedError if the peer announced a packet above the limit (then paramiko asks for
        that many bytes), or if the handshake has more bytes than its limit."""
        if size_bytes > LARGEST_PACKET_BYTES:
            raise _protocol_error(f"it announces a packet of {size_bytes} bytes")
        if self._position == self._end:
            self._position, self._end = 0, self._read_ahead()
        data = bytes(self._ahead[self._position : min(self._end, self._position + size_bytes)])
        self._position += len(data)
        return data

    def _read_ahead(self) -> int:
        """Reads into `_ahead`. Returns the number of bytes; 0 at the end of the stream."""
        if self.uses_quick_ack:
            _set_quick_ack(self._stream)
        try:
            count = self._receive()
        except TimeoutError:
            if self.on_recv_timeout:
                self.on_recv_timeout()
            raise
        self.received_count += 1
        if self.handshake_bytes_left is not None:
            self.beginning += self._ahead[: min(count, BEGINNING_BYTES - len(self.beginning))]
            self.handshake_bytes_left -= count
            if self.handshake_bytes_left < 0:
                raise _protocol_error(f"it sends more than {MOST_HANDSHAKE_BYTES} bytes before it is known")
        return count

    def _receive(self) -> int:
        if isinstance(self._stream, socket.socket):
            return self._stream.recv_into(self._ahead)
        data = self._stream.recv(READ_AHEAD_BYTES)
        self._ahead[: len(data)] = data
        return len(data)

    def send(self, data: bytes) -> int:
        return self._stream.send(data)

    def has_space(self) -> bool:
        """True if a small packet can be sent at once. False over a jump host, where it is not known."""
        if not isinstance(self._stream, socket.socket):
            return False
        poll = select.poll()
        try:
            poll.register(self._stream, select.POLLOUT)
        except ValueError:  # the stream is closed
            return False
        return bool(poll.poll(0))

    def settimeout(self, timeout_s: float | None) -> None:
        self._stream.settimeout(timeout_s)

    def getpeername(self) -> object:
        return self._stream.getpeername()

    def close(self) -> None:
        """Closes the stream and wakes up the threads that read or write it. Never blocks."""
        self._close()

    @property
    def _closed(self) -> bool:
        """paramiko reads this private attribute of sockets before it waits for its thread."""
        return bool(self._stream._closed)  # type: ignore[union-attr]


def _protocol_error(reason: str) -> ConnectionAbortedError:
    return ConnectionAbortedError(errno.EPROTO, reason)


def _set_quick_ack(stream: socket.socket | paramiko.Channel) -> None:
    # Set again before each read: the kernel resets the option after a while.
    if TCP_QUICKACK is not None and isinstance(stream, socket.socket):
        with contextlib.suppress(OSError):  # the stream is closed: the next read raises the error
            stream.setsockopt(socket.IPPROTO_TCP, TCP_QUICKACK, 1)


def wire_over_socket(stream: socket.socket) -> TransportSocket:
    def close() -> None:
        # The shutdown wakes up a thread that reads. After a close alone it would wait for its timeout.
        with contextlib.suppress(OSError):
            stream.shutdown(socket.SHUT_RDWR)
        stream.close()

    return TransportSocket(stream, close=close)


def wire_over_jump(channel: paramiko.Channel, jump: paramiko.Transport) -> TransportSocket:
    """Returns a socket over a channel of the jump host. No other connection uses that transport.

    `close` closes the jump host's transport: closing only the channel would send a packet to the peer, which
    may be frozen."""
    return TransportSocket(channel, close=jump.close)
