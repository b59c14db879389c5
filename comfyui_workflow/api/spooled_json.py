"""JSON responses with whole files in them, as base64.

How it works: a response with many files may be larger than the memory, so the JSON is written piece by piece
into a temporary file, which the event loop of the HTTP server sends afterwards.
"""

from binascii import b2a_base64
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO

from flask import Response, request
from werkzeug.wsgi import wrap_file

PIECE_BYTES = 3 * 64 * 1024
"""A multiple of 3: base64 encodes 3 bytes as 4 characters, so encoded pieces can be concatenated."""
IN_MEMORY_BYTES = 1024 * 1024


@contextmanager
def spooling(directory: Path) -> Iterator[IO[bytes]]:
    """Yields a file, and sets it to its start afterwards. Above `IN_MEMORY_BYTES` it is an unnamed temporary
    file in `directory`. So a response is never completely in memory, and a slow client blocks no thread. The
    file is closed after an error."""
    with ExitStack() as stack:
        spooled = stack.enter_context(SpooledTemporaryFile(IN_MEMORY_BYTES, dir=str(directory)))
        yield spooled
        spooled.seek(0)
        stack.pop_all()


def write_base64(file: IO[bytes], source: IO[bytes]) -> None:
    """Writes the rest of a file as base64, without quotes."""
    while piece := source.read(PIECE_BYTES):
        file.write(b2a_base64(piece, newline=False))


def spooled_response(file: IO[bytes]) -> Response:
    """Returns a response that sends the file. Uses `wrap_file`, so that the event loop of the server sends it
    and not this thread."""
    size_bytes = file.seek(0, 2)
    file.seek(0)
    response = Response(
        wrap_file(request.environ, file), mimetype="application/json", direct_passthrough=True
    )
    response.content_length = size_bytes
    return response
