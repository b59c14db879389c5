"""The output of a job in the format of worker-comfyui: every file as base64 or as a URL in a bucket."""

import json
from binascii import b2a_base64
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from comfyui_workflow.api.spooled_json import spooling, write_base64
from comfyui_workflow.services.jobs.view import DeliveredFile, Output


def spooled_document(head: dict[str, Any], output: Output, directory: Path) -> IO[bytes]:
    """Writes the complete document as JSON and returns the file, positioned at its start."""
    with spooling(directory) as file:
        file.write(json.dumps(head).encode()[:-1] + b', "output": {"images": [')
        errors = [*output.errors, *_write_images(file, output.files, b"%s")]
        has_any = len(errors) - len(output.errors) < len(output.files)
        rest = json.dumps(_other_fields(has_any, errors, output.notices)).encode()[1:-1]
        file.write(b"]" + (b", " + rest if rest else b"") + b"}}")
        return file


def spooled_stream(head: dict[str, Any], files: Sequence[DeliveredFile], directory: Path) -> IO[bytes]:
    """Like `spooled_document`, with a chunk per file in `stream`."""
    with spooling(directory) as file:
        file.write(json.dumps(head).encode()[:-1] + b', "stream": [')
        _write_images(file, files, b'{"output": %s}')
        file.write(b"]}")
        return file


def inline_output(output: Output, max_bytes: int) -> dict[str, Any]:
    """Returns the output for a message of limited size. A file that exceeds the rest of `max_bytes` is listed
    in `errors` instead."""
    images, errors, left_bytes = list[dict[str, str]](), list(output.errors), max_bytes
    for each in output.files:
        try:
            size_bytes = 0 if each.url else each.path.stat().st_size
            if size_bytes > left_bytes:
                errors.append(f"{each.filename} is too large to be sent along: ask for the status of the job")
                continue
            data = each.url or b2a_base64(each.path.read_bytes(), newline=False).decode()
        except OSError as error:
            errors.append(_read_error(each, error))
            continue
        left_bytes -= size_bytes
        images.append({"filename": each.filename, "type": _type(each), "data": data})
    return {"images": images, **_other_fields(bool(images), errors, output.notices)}


def _write_images(file: IO[bytes], files: Sequence[DeliveredFile], template: bytes) -> list[str]:
    """Writes the files as comma-separated JSON. Returns an error message for each file that cannot be
    read."""
    errors, separator = list[str](), b""
    before, _, after = template.partition(b"%s")
    for each in files:
        try:
            source = each.path.open("rb") if each.url is None else None
        except OSError as error:
            errors.append(_read_error(each, error))
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
        write_base64(file, source)
    file.write(b'"}')


def _type(each: DeliveredFile) -> str:
    return "base64" if each.url is None else "s3_url"


def _read_error(each: DeliveredFile, error: OSError) -> str:
    return f"{each.filename} cannot be read: {error.strerror} ({each.path})"


def _other_fields(has_any: bool, errors: Sequence[str], notices: Sequence[str]) -> dict[str, Any]:
    """Returns the fields of the output besides `images`. Clients take a job with `errors` for a failed one,
    so notices have a field of their own."""
    fields: dict[str, Any] = {"notices": list(notices)} if notices else {}
    if errors:
        return {"errors": list(errors), **fields}
    return fields if has_any else {"status": "success_no_images", **fields}
