"""The bytes of one file, to and from an instance. The one place to make faster.

send(client, local, remote, progress) -> bytes sent
receive(client, remote, size_bytes, take, progress) -> bytes received

What the instance refuses comes out as OSError; what the local disk refuses as FileRefused or StoreError.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import paramiko

from comfyui_workflow.errors import FileRefused, StoreError

Progress = Callable[[int, int], None]

# A write and its header fit one SSH packet, which OpenSSH limits to 32 KiB.
WRITE_BYTES = 32_600
READ_BYTES = 256 * 1024


def send(client: paramiko.SFTPClient, local: Path, remote: str, progress: Progress) -> int:
    """Into a new file. Returns the bytes sent; whether all arrived is for the caller to ask."""
    done_bytes = 0
    with _open_local(local) as source, client.open(remote, "wx") as target:
        size_bytes = os.fstat(source.fileno()).st_size
        target.set_pipelined(True)
        progress(0, size_bytes)
        while data := _read_local(source, local):
            target.write(data)
            done_bytes += len(data)
            progress(done_bytes, size_bytes)
    return done_bytes


def receive(
    client: paramiko.SFTPClient,
    remote: str,
    size_bytes: int,
    take: Callable[[bytes], object],
    progress: Progress,
) -> int:
    """Reads to the end, wherever that is by now. Returns the bytes received."""
    done_bytes = 0
    with client.open(remote, "rb") as source:
        source.prefetch(size_bytes)
        progress(0, size_bytes)
        while data := source.read(READ_BYTES):
            take(data)
            done_bytes += len(data)
            progress(done_bytes, size_bytes)
    return done_bytes


class LocalPart:
    """The local file that a download goes to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("wb")
        except OSError as error:
            raise self._refused(error) from error

    def __enter__(self) -> "LocalPart":
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise self._refused(error) from error

    def write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> StoreError:
        return StoreError(f"Cannot write {self._path}: {error.strerror}.")


def _open_local(local: Path) -> BinaryIO:
    try:
        return local.open("rb")
    except OSError as error:
        raise FileRefused(f"Cannot read {local}: {error.strerror}.") from error


def _read_local(source: BinaryIO, local: Path) -> bytes:
    try:
        return source.read(WRITE_BYTES)
    except OSError as error:
        raise FileRefused(f"Cannot read {local}: {error.strerror}.") from error
