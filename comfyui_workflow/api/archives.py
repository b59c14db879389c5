"""Sends output files as one ZIP archive.

How it works: the files are stored without compression, so the size of the archive is known before the first
byte is sent (`Content-Length`). Each file is read only while it is sent; nothing is written to disk.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from flask import Response
from zipstream import ZipStream

from comfyui_workflow.runs.model import OutputFile
from comfyui_workflow.sessions.leases import ConcurrencyLimit

MOST_AT_ONCE = 4
MAX_NAME_LENGTH = 100
_archive_limit = ConcurrencyLimit(MOST_AT_ONCE, f"{MOST_AT_ONCE} archives are being sent just now")
"""Each archive occupies a thread of the server until the client has received it."""
_FORBIDDEN_CHARACTERS = re.compile('[<>:"|?*/\\\\\x00-\x1f\x7f\u200e\u200f\u202a-\u202e\u2066-\u2069]')
"""Characters that some operating system does not allow in a file name, and bidirectional control characters,
which make a name read differently from what it is."""
_WORKFLOW_ENDING = re.compile(r"\.(json|png|webp|jpe?g)$", re.IGNORECASE)
_RESERVED_NAMES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def send_archive(outputs: Iterable[OutputFile], name: str) -> Response | None:
    """Returns the archive as a response, or None if no output is on this disk. Missing files are left out.
    Raises: ServerBusy."""
    archive = ZipStream(sized=True)
    for path, inner_name in _local_files(outputs):
        archive.add_path(path, inner_name, recurse=False)
    if not archive.num_queued():
        return None
    with ExitStack() as until_sent:
        until_sent.enter_context(_archive_limit.taken())
        response = Response(archive, mimetype="application/zip")
        response.content_length = len(archive)
        response.call_on_close(until_sent.pop_all().close)
    safe_name = _safe_name(_WORKFLOW_ENDING.sub("", name))[:MAX_NAME_LENGTH]
    response.headers.set("Content-Disposition", "attachment", **_filename_parameters(safe_name))
    response.headers["Cache-Control"] = "private, no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _filename_parameters(name: str) -> dict[str, str]:
    """Returns the parameters of `Content-Disposition`. Headers are ASCII: a name with other characters is
    added as percent-encoded UTF-8 (RFC 6266)."""
    if name.isascii():
        return {"filename": f"{name}.zip"}
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().strip("_. ")
    return {
        "filename": f"{plain or 'outputs'}.zip",
        "filename*": f"UTF-8''{quote(name, safe='')}.zip",
    }


def _local_files(outputs: Iterable[OutputFile]) -> Iterator[tuple[Path, str]]:
    """Yields the path of each existing file and its unique name in the archive. A file that several runs list
    is yielded once."""
    paths: set[Path] = set()
    names: set[str] = set()
    for output in outputs:
        path = Path(output.local_path) if output.local_path is not None else None
        if path is None or path in paths or not path.is_file():
            continue
        paths.add(path)
        yield path, _unique_name(names, PurePosixPath(*_folders(output), _safe_name(path.name)))


def _folders(output: OutputFile) -> list[str]:
    return [_safe_name(folder) for folder in output.subfolder.split("/") if folder]


def _unique_name(names: set[str], wanted: PurePosixPath) -> str:
    """Returns the wanted name, with a number if it is taken. The comparison ignores case, as some file
    systems do."""
    name, number = wanted, 1
    while str(name).casefold() in names:
        number += 1
        name = wanted.with_name(f"{wanted.stem} ({number}){wanted.suffix}")
    names.add(str(name).casefold())
    return str(name)


def _safe_name(name: str) -> str:
    plain = _FORBIDDEN_CHARACTERS.sub("_", name).encode("utf-8", "replace").decode().strip().rstrip(".")
    return f"_{plain}" if not plain or plain == "." or _RESERVED_NAMES.fullmatch(plain) else plain
