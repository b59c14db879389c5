"""The output of a job as worker-comfyui shapes it: every file in base64, or as its URL in a bucket."""

import json
from binascii import b2a_base64
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from comfyui_workflow.services.jobs.view import DeliveredFile, Output

PIECE_BYTES = 3 * 64 * 1024
"""Three bytes are four letters, so that pieces can be written one after the other."""
IN_MEMORY_BYTES = 1024 * 1024


def spooled_document(head: dict[str, Any], output: Output, directory: Path) -> IO[bytes]:
    """The whole document as JSON, read from its start. A large one is in a file without a name, in
    `directory`: it is never in memory whole, and whoever reads it slowly keeps nobody waiting."""
    with _spooling(directory) as file:
        file.write(json.dumps(head).encode()[:-1] + b', "output": {"images": [')
        errors = [*output.errors, *_write_images(file, output.files, b"%s")]
        has_any = len(errors) - len(output.errors) < len(output.files)
        rest = json.dumps(_besides(has_any, errors)).encode()[1:-1]
        file.write(b"]" + (b", " + rest if rest else b"") + b"}}")
        return file


def spooled_stream(head: dict[str, Any], files: Sequence[DeliveredFile], directory: Path) -> IO[bytes]:
    """As the document, with a chunk for each file."""
    with _spooling(directory) as file:
        file.write(json.dumps(head).encode()[:-1] + b', "stream": [')
        _write_images(file, files, b'{"output": %s}')
        file.write(b"]}")
        return file


def inline_output(output: Output, most_bytes: int) -> dict[str, Any]:
    """For a message that is sent whole: a file that does not fit in is named among the errors."""
    images, errors, left_bytes = list[dict[str, str]](), list(output.errors), most_bytes
    for each in output.files:
        try:
            size_bytes = 0 if each.url else each.path.stat().st_size
            if size_bytes > left_bytes:
                errors.append(f"{each.filename} is too large to be sent along: ask for the status of the job")
                continue
            data = each.url or b2a_base64(each.path.read_bytes(), newline=False).decode()
        except OSError as error:
            errors.append(_gone(each, error))
            continue
        left_bytes -= size_bytes
        images.append({"filename": each.filename, "type": _type(each), "data": data})
    return {"images": images, **_besides(bool(images), errors)}


@contextmanager
def _spooling(directory: Path) -> Iterator[IO[bytes]]:
    with ExitStack() as stack:
        spooled = stack.enter_context(SpooledTemporaryFile(IN_MEMORY_BYTES, dir=str(directory)))
        yield spooled
        spooled.seek(0)
        stack.pop_all()


def _write_images(file: IO[bytes], files: Sequence[DeliveredFile], form: bytes) -> list[str]:
    """With commas between; what could not be read, in sentences."""
    errors, separator = list[str](), b""
    before, _, after = form.partition(b"%s")
    for each in files:
        try:
            source = each.path.open("rb") if each.url is None else None
        except OSError as error:
            errors.append(_gone(each, error))
            continue
        file.write(separator + before)
        _write_image(file, each, source)
        file.write(after)
        separator = b", "
    return errors


def _write_image(file: IO[bytes], each: DeliveredFile, source: IO[bytes] | None) -> None:
    named = {"filename": each.filename, "type": _type(each)}
    if source is None:
        file.write(json.dumps({**named, "data": each.url}).encode())
        return
    file.write(json.dumps(named).encode()[:-1] + b', "data": "')
    with source:
        while piece := source.read(PIECE_BYTES):
            file.write(b2a_base64(piece, newline=False))
    file.write(b'"}')


def _type(each: DeliveredFile) -> str:
    return "base64" if each.url is None else "s3_url"


def _gone(each: DeliveredFile, error: OSError) -> str:
    return f"{each.filename} cannot be read: {error.strerror} ({each.path})"


def _besides(has_any: bool, errors: Sequence[str]) -> dict[str, Any]:
    """What stands beside the images."""
    if errors:
        return {"errors": list(errors)}
    return {} if has_any else {"status": "success_no_images"}
