"""One SFTP session, with many requests under way at once. For one thread at a time.

SftpSession(client, silence_timeout_s)
    heed                                         called twice a second while it waits; may raise
    client                                       paramiko's own, for one question at a time
    open(path, flags), read(...), write(...)...  sends a request and returns its number
    handle(number), data(number), wait(number)   waits for its answer; OSError when it is refused
    abandon(number)                              its answer is not waited for
    takes_large_reads                            whether a read may be as large as OpenSSH allows

paramiko's files ask for 32 KiB at a time, and stop writing to collect answers. Of paramiko only the channel
is used here. All that has arrived is taken from it at once: at each smaller bite it moves the whole rest.

The packets: draft-ietf-secsh-filexfer-02, version 3 of the protocol.
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

# Above those that paramiko counts: what is still owed to one of the two is no answer to the other.
FIRST_REQUEST_NUMBER = 1 << 31

# A read of paramiko's blocks, and no token wakes it: so often `on_wait` is called meanwhile.
WAKE_UP_S = 0.5
# Answers that nobody asked for, in a row: a server that sends nothing else is none.
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
    """Unix time by the clock of the instance; 0 where it does not tell."""


def _noop() -> None:
    pass


class SftpSession:
    def __init__(self, client: paramiko.SFTPClient, silence_timeout_s: float) -> None:
        """Without a byte for `silence_timeout_s`, whatever waits raises TimeoutError."""
        self._client = client
        channel = client.get_channel()
        assert channel is not None  # noqa: S101 - closed sessions have one too
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
        """Once nothing is owed any more: it would take the rest of an answer for its own."""
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
        """Fewer bytes than asked for where the server likes it so; none at the end of the file."""
        return _read_string(self._response(number, Kind.DATA))

    def attributes(self, number: int) -> Attributes:
        return _read_attributes(self._response(number, Kind.ATTRIBUTES))[0]

    def names(self, number: int) -> list[tuple[str, Attributes]]:
        """Some entries of a directory; none when there are no more."""
        return _read_names(self._response(number, Kind.NAME))

    def wait(self, number: int) -> None:
        self._response(number, Kind.STATUS)

    def close(self) -> None:
        self._client.close()

    def abandon(self, *numbers: int) -> None:
        """Nobody will ask how it went."""
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
        """Raises: TimeoutError when nothing moves for too long; what `on_wait` raises."""
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
            return _NUMBER.pack(0)  # the end of the file: a string without a byte
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
    """Returns for the success that was wanted, and for the end of what was read. Raises: OSError."""
    (code,) = _unpack(_NUMBER, body)
    if (wanted, code) in ((Kind.STATUS, Status.OK), (Kind.DATA, Status.END_OF_FILE), _END_OF_NAMES):
        return
    text = bytes(_read_string(body[_NUMBER.size :])).decode(errors="replace")
    if code == Status.NO_SUCH_FILE:
        raise FileNotFoundError(errno.ENOENT, text)
    if code == Status.PERMISSION_DENIED:
        raise PermissionError(errno.EACCES, text)
    if code == Status.OK:
        raise EOFError  # a success where there should be an answer
    raise OSError(text)


def _read_attributes(body: bytes | memoryview, position: int = 0) -> tuple[Attributes, int]:
    """What the flags say is there: size, owners, permissions, times, more. And where it ends."""
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
    """Of each entry its name, a line for people, and its attributes."""
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
    """A server that breaks the protocol is as good as gone."""
    if len(body) < form.size:
        raise EOFError
    return form.unpack_from(body)


def _text(path: str) -> bytes:
    return _string(path.encode())


def _string(data: bytes) -> bytes:
    return _NUMBER.pack(len(data)) + data
