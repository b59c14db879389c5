"""Reads a response of `GET /view`: which bytes of which version of a file it has."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import requests

from comfyui_workflow.errors import ComfyUIUnavailable, RemoteFileError, RemoteFileMissing

PIECE_BYTES = 256 * 1024

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_TAG = re.compile(r'"([0-9a-f]{1,16})-([0-9a-f]{1,16})"')
"""ETag of aiohttp, which ComfyUI is built on: modification time in nanoseconds and size, both hexadecimal."""


@dataclass(frozen=True, kw_only=True)
class ViewedFile:
    """The bytes from `start` to the end of the file. Can be iterated over once. Raises while iterating:
    ComfyUIUnavailable if the connection breaks; RemoteFileError for too many bytes."""

    pieces: Iterator[bytes]
    start: int = 0
    size_bytes: int | None = None
    """Size of the whole file; None if the response does not tell it."""
    tag: str | None = None
    """ETag or Last-Modified: changes when the file changes."""
    last_modified: str | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self.pieces

    @property
    def modified_ns(self) -> int | None:
        """Modification time by the clock of the instance; None if the tag does not tell it."""
        found = _TAG.fullmatch(self.tag or "")
        if found is None or int(found[2], 16) != self.size_bytes:
            return None
        return int(found[1], 16)

    @property
    def modified_s(self) -> int | None:
        """The same in whole seconds, also if only Last-Modified tells it."""
        if self.modified_ns is not None:
            return self.modified_ns // 10**9
        try:
            return int(parsedate_to_datetime(self.last_modified or "").timestamp())
        except (ValueError, OverflowError, OSError):
            return None


def headers_of(start: int) -> dict[str, str]:
    """Returns the request headers for the bytes from `start` on; a negative number counts from the end. Asks
    for no compression, since the length of a compressed response is not the length of the file."""
    headers = {"Accept-Encoding": "identity"}
    if not start:
        return headers
    return {**headers, "Range": f"bytes={start}-" if start > 0 else f"bytes={start}"}


def read_view(response: requests.Response, filename: str, wanted_start: int) -> ViewedFile:
    """Raises: RemoteFileMissing; RemoteFileError for any answer but the file itself."""
    if response.status_code == 404:
        raise RemoteFileMissing(f"{filename} is not on the instance any more")
    start, size_bytes = 0, _length(response)
    if response.status_code == 206:
        start, size_bytes = _range(response, filename, wanted_start)
    elif response.status_code != 200:
        raise RemoteFileError(f"ComfyUI does not send {filename} (HTTP {response.status_code})")
    left_bytes = None if size_bytes is None else size_bytes - start
    return ViewedFile(
        pieces=_pieces(response, filename, left_bytes),
        start=start,
        size_bytes=size_bytes,
        tag=response.headers.get("ETag") or response.headers.get("Last-Modified"),
        last_modified=response.headers.get("Last-Modified"),
    )


def _length(response: requests.Response) -> int | None:
    """Returns Content-Length; None if the response is compressed nevertheless."""
    length = response.headers.get("Content-Length", "")
    is_plain = response.headers.get("Content-Encoding", "identity") in ("", "identity")
    return int(length) if is_plain and re.fullmatch(r"[0-9]{1,18}", length) else None


def _range(response: requests.Response, filename: str, wanted_start: int) -> tuple[int, int]:
    """Returns the first byte and the size of the whole file. Raises: RemoteFileError unless the range goes
    from `wanted_start` to the end."""
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    first, last, size_bytes = map(int, found.groups()) if found else (-1, -1, 0)
    start = wanted_start if wanted_start >= 0 else max(0, size_bytes + wanted_start)
    if first != start or last != size_bytes - 1:
        raise RemoteFileError(f"ComfyUI sends another part of {filename} than was requested")
    return first, size_bytes


def _pieces(response: requests.Response, filename: str, expected_bytes: int | None) -> Iterator[bytes]:
    done_bytes = 0
    try:
        for piece in response.iter_content(PIECE_BYTES):
            done_bytes += len(piece)
            if expected_bytes is not None and done_bytes > expected_bytes:
                raise RemoteFileError(f"ComfyUI sends more bytes of {filename} than it announced")
            yield piece
    except requests.RequestException as error:
        raise ComfyUIUnavailable("The connection broke while a file was being fetched") from error
    if expected_bytes is not None and done_bytes < expected_bytes:
        raise ComfyUIUnavailable(f"ComfyUI sent {done_bytes} bytes of {filename} instead of {expected_bytes}")
