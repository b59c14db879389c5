"""Output files in one ZIP: as they are, read while they are sent, and of a size that is told before."""

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
LONGEST_NAME = 100
_places = ConcurrencyLimit(MOST_AT_ONCE, f"{MOST_AT_ONCE} archives are being sent just now")
"""Each keeps a thread of the server for as long as somebody takes to receive it."""
_NOT_IN_NAMES = re.compile('[<>:"|?*/\\\\\x00-\x1f\x7f\u200e\u200f\u202a-\u202e\u2066-\u2069]')
"""What some system takes for something else, and what makes a name read otherwise than it is."""
_WORKFLOW_ENDING = re.compile(r"\.(json|png|webp|jpe?g)$", re.IGNORECASE)
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def send_archive(outputs: Iterable[OutputFile], name: str) -> Response | None:
    """None where none of them is here. What is missing is left out. Raises: ServerBusy."""
    archive = ZipStream(sized=True)
    for path, inner_name in _files_here(outputs):
        archive.add_path(path, inner_name, recurse=False)
    if not archive.num_queued():
        return None
    with ExitStack() as until_sent:
        until_sent.enter_context(_places.taken())
        response = Response(archive, mimetype="application/zip")
        response.content_length = len(archive)
        response.call_on_close(until_sent.pop_all().close)
    safe_name = _safe(_WORKFLOW_ENDING.sub("", name))[:LONGEST_NAME]
    response.headers.set("Content-Disposition", "attachment", **_in_a_header(safe_name))
    response.headers["Cache-Control"] = "private, no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _in_a_header(name: str) -> dict[str, str]:
    """Headers are ASCII: any other name goes along in quoted UTF-8 (RFC 6266)."""
    if name.isascii():
        return {"filename": f"{name}.zip"}
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().strip("_. ")
    return {
        "filename": f"{plain or 'outputs'}.zip",
        "filename*": f"UTF-8''{quote(name, safe='')}.zip",
    }


def _files_here(outputs: Iterable[OutputFile]) -> Iterator[tuple[Path, str]]:
    """Each file once, however many runs made it, under a name of its own."""
    paths: set[Path] = set()
    names: set[str] = set()
    for output in outputs:
        path = Path(output.local_path) if output.local_path is not None else None
        if path is None or path in paths or not path.is_file():
            continue
        paths.add(path)
        yield path, _unlike(names, PurePosixPath(*_folders(output), _safe(path.name)))


def _folders(output: OutputFile) -> list[str]:
    return [_safe(folder) for folder in output.subfolder.split("/") if folder]


def _unlike(names: set[str], wanted: PurePosixPath) -> str:
    """Some systems know no difference between capitals and small letters."""
    name, number = wanted, 1
    while str(name).casefold() in names:
        number += 1
        name = wanted.with_name(f"{wanted.stem} ({number}){wanted.suffix}")
    names.add(str(name).casefold())
    return str(name)


def _safe(name: str) -> str:
    plain = _NOT_IN_NAMES.sub("_", name).encode("utf-8", "replace").decode().strip().rstrip(".")
    return f"_{plain}" if not plain or plain == "." or _RESERVED.fullmatch(plain) else plain
