"""An answer to `GET /view`, read: which bytes of which version of a file it has."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import requests

from comfyui_workflow.errors import ComfyUIUnavailable, RemoteFileError, RemoteFileMissing

PIECE_BYTES = 256 * 1024

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_TAG = re.compile(r'"([0-9a-f]{1,16})-([0-9a-f]{1,16})"')
"""Of aiohttp, on which ComfyUI is built: when the file was modified, in nanoseconds, and its size."""


@dataclass(frozen=True, kw_only=True)
class ViewedFile:
    """To be iterated over once: the bytes from `start` to the end of the file.
    Raises meanwhile: ComfyUIUnavailable when the connection breaks; RemoteFileError for bytes too many."""

    pieces: Iterator[bytes]
    start: int = 0
    size_bytes: int | None = None
    """Of the whole file; None where the answer does not tell."""
    tag: str | None = None
    """Another one as soon as the file is another."""

    def __iter__(self) -> Iterator[bytes]:
        return self.pieces

    @property
    def modified_ns(self) -> int | None:
        """By the clock of the instance."""
        found = _TAG.fullmatch(self.tag or "")
        if found is None or int(found[2], 16) != self.size_bytes:
            return None
        return int(found[1], 16)


def headers_of(start: int) -> dict[str, str]:
    """For the bytes from `start` on. Nothing packed: its length would be another."""
    headers = {"Accept-Encoding": "identity"}
    return {**headers, "Range": f"bytes={start}-"} if start else headers


def read_view(response: requests.Response, filename: str, wanted_start: int) -> ViewedFile:
    """Raises: RemoteFileMissing; RemoteFileError for any answer but the file itself."""
    if response.status_code == 404:
        raise RemoteFileMissing(f"{filename} is not on the instance any more")
    start, size_bytes = 0, _length(response)
    if response.status_code == 206:
        start, size_bytes = _range(response, filename, wanted_start)
    elif response.status_code != 200:
        raise RemoteFileError(f"ComfyUI does not give out {filename} (HTTP {response.status_code})")
    left_bytes = None if size_bytes is None else size_bytes - start
    return ViewedFile(
        pieces=_pieces(response, filename, left_bytes),
        start=start,
        size_bytes=size_bytes,
        tag=response.headers.get("ETag") or response.headers.get("Last-Modified"),
    )


def _length(response: requests.Response) -> int | None:
    """None for what is packed all the same: the length is that of the package."""
    length = response.headers.get("Content-Length", "")
    is_plain = response.headers.get("Content-Encoding", "identity") in ("", "identity")
    return int(length) if is_plain and re.fullmatch(r"[0-9]{1,18}", length) else None


def _range(response: requests.Response, filename: str, wanted_start: int) -> tuple[int, int]:
    """Where it begins, and the size of the whole. Raises: RemoteFileError unless it goes from there to the
    end."""
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    first, last, size_bytes = map(int, found.groups()) if found else (-1, -1, 0)
    if first != wanted_start or last != size_bytes - 1:
        raise RemoteFileError(f"ComfyUI gives out another part of {filename} than was asked for")
    return first, size_bytes


def _pieces(response: requests.Response, filename: str, expected_bytes: int | None) -> Iterator[bytes]:
    done_bytes = 0
    try:
        for piece in response.iter_content(PIECE_BYTES):
            done_bytes += len(piece)
            if expected_bytes is not None and done_bytes > expected_bytes:
                raise RemoteFileError(f"ComfyUI sends more of {filename} than it said there is")
            yield piece
    except requests.RequestException as error:
        raise ComfyUIUnavailable("The connection broke while a file was being fetched") from error
    if expected_bytes is not None and done_bytes < expected_bytes:
        raise ComfyUIUnavailable(f"ComfyUI sent {done_bytes} bytes of {filename} instead of {expected_bytes}")
