"""SFTP session with many pipelined requests. For one thread at a time.

SftpSession(client, silence_timeout_s)
    on_wait                                      called twice a second while it waits; may raise
    client                                       paramiko's own client, for single requests
    open(path, flags), read(...), write(...)...  sends a request and returns its number
    handle(number), data(number), wait(number)   waits for the response; OSError if the request is refused
    abandon(number)                              ignores the response
    takes_large_reads                            True if the server accepts reads of OpenSSH's size

How it works: every request has a number, and its response has the same number, so responses are collected
later and in any order. paramiko's own file objects read 32 KiB at a time, and stop writing while they collect
responses. Of paramiko only the channel is used here. Each recv takes all bytes that have arrived: a smaller
recv makes paramiko move the rest of its buffer.

Packet format: draft-ietf-secsh-filexfer-02, version 3 of the protocol.
"""

import errno
import stat
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

import paramiko

LARGEST_PACKET_BYTES = 1024 * 1024
READ_ALL_BYTES = 1 << 30

# Above the numbers of paramiko's client, so that a late response is never taken for one of the other's.
FIRST_REQUEST_NUMBER = 1 << 31

# Timeout of one blocking read or send, after which `on_wait` is called: a CancelToken cannot wake paramiko.
WAKE_UP_S = 0.5
# Maximum of consecutive responses without a request, after which the server counts as broken.
MOST_UNEXPECTED = 10_000
MOST_ENTRIES = 100_000

Done = TypeVar("Done")


class Kind(IntEnum):
    OPEN = 3
    CLOSE = 4
    READ = 5
    WRITE = 6
    LSTAT = 7
    FSTAT = 8
    OPENDIR = 11
    READDIR = 12
    REMOVE = 13
    STAT = 17
    RENAME = 18
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRIBUTES = 105


class Status(IntEnum):
    OK = 0
    END_OF_FILE = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3


READING = 0x01
WRITING = 0x02
NEW_AND_WRITING = 0x02 | 0x08 | 0x20

_HEAD = struct.Struct(">IBI")
_RANGE = struct.Struct(">QI")
_NUMBER = struct.Struct(">I")
_SIZE = struct.Struct(">Q")


@dataclass(frozen=True, kw_only=True)
class Attributes:
    size_bytes: int
    is_directory: bool
    modified_s: int = 0
    """Unix time in seconds by the clock of the instance; 0 if the server does not give it."""


def _noop() -> None:
    pass


class SftpSession:
    def __init__(self, client: paramiko.SFTPClient, silence_timeout_s: float) -> None:
        """`silence_timeout_s`: a wait without a received byte for this long raises TimeoutError."""
        self._client = client
        channel = client.get_channel()
        assert channel is not None  # noqa: S101 - closed sessions have a channel too
        self._channel = channel
        self._silence_timeout_s = silence_timeout_s
        self.on_wait: Callable[[], None] = _noop
        self.takes_large_reads = "OpenSSH" in self._channel.get_transport().remote_version
        self._next_number = FIRST_REQUEST_NUMBER
        self._unexpected_count = 0
        self._pending: set[int] = set()
        self._abandoned: set[int] = set()
        self._responses: dict[int, tuple[int, bytes]] = {}
        self._received = bytearray()

    @property
    def client(self) -> paramiko.SFTPClient:
        """paramiko's client. Waits for all pending responses first: the client would read them as its own."""
        while self._pending or self._abandoned:
            self._receive_packet()
        self._channel.settimeout(self._silence_timeout_s)
        return self._client

    def open(self, path: str, flags: int) -> int:
        return self._send_request(Kind.OPEN, _text(path), _NUMBER.pack(flags), _NUMBER.pack(0))

    def stat(self, path: str) -> int:
        return self._send_request(Kind.STAT, _text(path))

    def lstat(self, path: str) -> int:
        return self._send_request(Kind.LSTAT, _text(path))

    def fstat(self, handle: bytes) -> int:
        return self._send_request(Kind.FSTAT, _string(handle))

    def open_directory(self, path: str) -> int:
        return self._send_request(Kind.OPENDIR, _text(path))

    def read_directory(self, handle: bytes) -> int:
        return self._send_request(Kind.READDIR, _string(handle))

    def remove(self, path: str) -> int:
        return self._send_request(Kind.REMOVE, _text(path))

    def read(self, handle: bytes, offset: int, size_bytes: int) -> int:
        return self._send_request(Kind.READ, _string(handle), _RANGE.pack(offset, size_bytes))

    def write(self, handle: bytes, offset: int, data: bytes) -> int:
        return self._send_request(Kind.WRITE, _string(handle), _RANGE.pack(offset, len(data)), data)

    def close_file(self, handle: bytes) -> int:
        return self._send_request(Kind.CLOSE, _string(handle))

    def rename(self, old: str, new: str) -> int:
        return self._send_request(Kind.RENAME, _text(old), _text(new))

    def handle(self, number: int) -> bytes:
        return bytes(_read_string(self._response(number, Kind.HANDLE)))

    def data(self, number: int) -> memoryview:
        """Waits for the data of a read. May be shorter than requested; empty at the end of the file."""
        return _read_string(self._response(number, Kind.DATA))

    def attributes(self, number: int) -> Attributes:
        return _read_attributes(self._response(number, Kind.ATTRIBUTES))[0]

    def names(self, number: int) -> list[tuple[str, Attributes]]:
        """Waits for the next entries of a directory; an empty list at the end."""
        return _read_names(self._response(number, Kind.NAME))

    def wait(self, number: int) -> None:
        self._response(number, Kind.STATUS)

    def close(self) -> None:
        self._client.close()

    def abandon(self, *numbers: int) -> None:
        """Ignores the responses to these requests."""
        for number in numbers:
            if not self._responses.pop(number, None):
                self._pending.remove(number)
                self._abandoned.add(number)

    def abandon_all(self) -> None:
        self.abandon(*self._pending, *self._responses)

    def _send_request(self, kind: Kind, *fields: bytes) -> int:
        number = self._next_number
        self._next_number += 1
        self._pending.add(number)
        head = _HEAD.pack(5 + sum(map(len, fields)), kind, number)
        packet = b"".join((head, *fields))
        while packet:
            packet = packet[self._send(packet) :]
        return number

    def _send(self, packet: bytes) -> int:
        sent_bytes = self._retry_until_silent(lambda: self._channel.send(packet))
        if not sent_bytes:
            raise EOFError
        return sent_bytes

    def _retry_until_silent(self, act: Callable[[], Done]) -> Done:
        """Repeats `act` after each of its timeouts, and calls `on_wait` between.

        Raises: TimeoutError after the silence timeout; the errors of `on_wait`."""
        self._channel.settimeout(min(WAKE_UP_S, self._silence_timeout_s))
        until_s = time.monotonic() + self._silence_timeout_s
        while True:
            try:
                return act()
            except TimeoutError:
                self.on_wait()
                if time.monotonic() >= until_s:
                    raise

    def _response(self, number: int, wanted: Kind) -> bytes:
        while number not in self._responses:
            self._receive_packet()
        kind, body = self._responses.pop(number)
        if kind == Kind.STATUS:
            _check_status(body, wanted)
            return _NUMBER.pack(0)  # the end of the file: an empty string
        if kind != wanted:
            raise EOFError
        return body

    def _receive_packet(self) -> None:
        while len(self._received) < (size_bytes := self._next_packet_bytes()):
            data = self._retry_until_silent(lambda: self._channel.recv(READ_ALL_BYTES))
            if not data:
                raise EOFError
            self._received += data
        _, kind, number = _HEAD.unpack_from(self._received)
        is_expected = number in self._pending or number in self._abandoned
        self._unexpected_count = 0 if is_expected else self._unexpected_count + 1
        if self._unexpected_count > MOST_UNEXPECTED:
            raise EOFError
        if number in self._pending:
            self._pending.remove(number)
            with memoryview(self._received) as view:
                self._responses[number] = kind, bytes(view[_HEAD.size : size_bytes])
        self._abandoned.discard(number)
        del self._received[:size_bytes]

    def _next_packet_bytes(self) -> int:
        if len(self._received) < _HEAD.size:
            return _HEAD.size
        size_bytes = 4 + int(_NUMBER.unpack_from(self._received)[0])
        if not _HEAD.size <= size_bytes <= LARGEST_PACKET_BYTES:
            raise EOFError
        return size_bytes


_END_OF_NAMES = (Kind.NAME, Status.END_OF_FILE)


def _check_status(body: bytes, wanted: Kind) -> None:
    """Returns for a success and for the end of a file or directory.

    Raises: OSError for a refusal; EOFError if a status came instead of the expected response."""
    (code,) = _unpack(_NUMBER, body)
    if (wanted, code) in ((Kind.STATUS, Status.OK), (Kind.DATA, Status.END_OF_FILE), _END_OF_NAMES):
        return
    text = bytes(_read_string(body[_NUMBER.size :])).decode(errors="replace")
    if code == Status.NO_SUCH_FILE:
        raise FileNotFoundError(errno.ENOENT, text)
    if code == Status.PERMISSION_DENIED:
        raise PermissionError(errno.EACCES, text)
    if code == Status.OK:
        raise EOFError  # a success status instead of a response with data
    raise OSError(text)


def _read_attributes(body: bytes | memoryview, position: int = 0) -> tuple[Attributes, int]:
    """Parses attributes. The flags say which fields follow: size, owners, permissions, times, extensions.
    Returns the attributes and the position after them."""
    (flags,) = _unpack(_NUMBER, body[position : position + 4])
    position += _NUMBER.size
    size_bytes = _unpack(_SIZE, body[position : position + 8])[0] if flags & 1 else 0
    position += (8 if flags & 1 else 0) + (8 if flags & 2 else 0)
    mode = _unpack(_NUMBER, body[position : position + 4])[0] if flags & 4 else 0
    position += 4 if flags & 4 else 0
    modified_s = _unpack(_NUMBER, body[position + 4 : position + 8])[0] if flags & 8 else 0
    position += 8 if flags & 8 else 0
    if flags & 0x80000000:
        (more,) = _unpack(_NUMBER, body[position : position + 4])
        position += 4
        for _ in range(2 * min(more, len(body))):
            position += 4 + len(_read_string(body[position:]))
    found = Attributes(size_bytes=size_bytes, is_directory=stat.S_ISDIR(mode), modified_s=modified_s)
    return found, position


def _read_names(body: bytes) -> list[tuple[str, Attributes]]:
    """Parses directory entries: each has a name, a line as of `ls -l`, and attributes."""
    view, names = memoryview(body), []
    (count,) = _unpack(_NUMBER, view)
    position = _NUMBER.size
    for _ in range(min(count, len(view))):
        name = bytes(_read_string(view[position:]))
        position += 4 + len(name)
        position += 4 + len(_read_string(view[position:]))
        attributes, position = _read_attributes(view, position)
        names.append((name.decode("utf-8", "surrogateescape"), attributes))
    return names


def _read_string(body: bytes | memoryview) -> memoryview:
    (size_bytes,) = _unpack(_NUMBER, body)
    return memoryview(body)[_NUMBER.size : _NUMBER.size + size_bytes]


def _unpack(form: struct.Struct, body: bytes | memoryview) -> tuple[int, ...]:
    """Unpacks a struct. Raises: EOFError if the packet is too short: the server breaks the protocol."""
    if len(body) < form.size:
        raise EOFError
    return form.unpack_from(body)


def _text(path: str) -> bytes:
    return _string(path.encode())


def _string(data: bytes) -> bytes:
    return _NUMBER.pack(len(data)) + data
