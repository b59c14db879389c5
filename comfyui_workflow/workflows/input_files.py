"""Matches the texts in a graph with the input files of a request.

A node names a file by a name below ComfyUI's input directory (`photo.png`, `pasted/photo.png`). A request
names files of this machine (`/home/me/pasted/photo.png`). A text names a file

1. if the path of the file is the text, or ends with it (`pasted/photo.png`); parts are compared whole, and a
   leading `~`, `.`, `..` or `…/input` of the text is ignored; or
2. if at least their last parts are equal, and the request has only one file with this last part, which no
   text names by rule 1.

Spellings of Unicode are equal (macOS decomposes letters), and so are `/` and `\\`. A directory of files is
named in the same way; its path ends with a slash, and a text may go on to name a file in it.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.parsing.untrusted import as_object, is_safe_name
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.validation.files import folder_and_name, texts_in

_LONGEST_TEXT = 4096
_MARK = re.compile(r" ?\[(input|output|temp)\]$")
_LOCAL_START = re.compile(r"/|~[^/]*/|\.{1,2}/|[A-Za-z]:/")

Parts = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FileReference:
    """A text that names an input file."""

    path: str
    """The file or directory of the request."""
    name: str
    """Name of `path` below ComfyUI's input directory, as the text wants it."""
    before: str = ""
    """The part of the text before the name: `input/`."""
    after: str = ""
    """The part of the text after the name: a file in the directory `path`, and the mark ` [input]`."""
    is_path: bool = False
    """True if the text is more than a name below the input directory: a node that takes any path needs the
    one on the instance."""

    def value(self, name: str) -> str:
        """Returns the value of the input if the file has this name on the instance."""
        return f"{self.before}{name}{self.after}"


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """One way to read a text: what precedes the name, and the parts of the name."""

    before: str
    parts: Parts
    is_local: bool
    is_absolute: bool = False


class InputFiles:
    """The input files of one request, searchable by the texts that name them."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = tuple(dict.fromkeys(paths))
        self._by_ending: dict[Parts, list[tuple[Parts, str]]] = defaultdict(list)
        """Paths by their last part, and by their last two parts."""
        for path in self.paths:
            parts = _normal(_split(path))
            for ending in {parts[-1:], parts[-2:]}:
                self._by_ending[ending].append((parts, path))

    def references(self, texts: Iterable[str]) -> dict[str, FileReference]:
        """Returns the texts that name files of the request. Raises: InvalidRequest if a text names two
        files."""
        asked = [text for text in dict.fromkeys(texts) if self.paths and _may_name_a_file(text)]
        found = {text: named for text in asked if (named := self._by_rule_1(text)) is not None}
        used = {each.path for each in found.values()}
        return found | {
            text: named
            for text in asked
            if text not in found and (named := self._by_rule_2(text, used)) is not None
        }

    def names(self, references: Mapping[str, FileReference]) -> dict[str, str]:
        """Returns the name below ComfyUI's input directory for each path. All names are different."""
        wanted: dict[str, str] = {}
        for each in sorted(references.values(), key=lambda each: each.is_path):
            wanted.setdefault(each.path, each.name)
        taken: set[str] = set()
        names = {}
        for path in sorted(self.paths, key=lambda path: path not in wanted):
            name = wanted.get(path) or base_name(path)
            names[path] = next(each for each in _variants(name) if each not in taken)
            taken.add(names[path])
        return names

    def _by_rule_1(self, text: str) -> FileReference | None:
        for reading in _readings(text):
            for end in range(len(reading.parts), 0, -1):
                path = self._path_ending_with(reading, end)
                if path is not None:
                    return _reference(path, reading, end, text)
        return None

    def _path_ending_with(self, reading: _Reading, end: int) -> str | None:
        """Returns the path that ends with the first `end` parts. If there are more parts, it is a
        directory."""
        wanted = _normal(reading.parts[:end])
        is_whole = end == len(reading.parts)
        found = [
            path
            for parts, path in self._by_ending.get(wanted[-2:], ())
            if (parts == wanted or (not reading.is_absolute and parts[-len(wanted) :] == wanted))
            and (is_whole or path.endswith("/"))
        ]
        if len(found) > 1:
            raise InvalidRequest(
                f'input_images has {len(found)} different files called "{"/".join(wanted)}": '
                f"{', '.join(found[:3])}. Name the file in the workflow with its directory, or by its path"
            )
        return found[0] if found else None

    def _by_rule_2(self, text: str, used: set[str]) -> FileReference | None:
        reading = _readings(text)[-1]
        candidates = self._by_ending.get(_normal(reading.parts)[-1:], ())
        if not reading.parts or len(candidates) != 1 or candidates[0][1] in used:
            return None
        return _reference(candidates[0][1], reading, len(reading.parts), text)


def texts_of(graph: Graph) -> Iterator[str]:
    """Yields all texts in the inputs of the nodes."""
    for node in graph.values():
        yield from texts_in(as_object(node.get("inputs")))


def provided_names(graph: Graph, paths: Sequence[str]) -> frozenset[str]:
    """Returns the names of the input files: as the graph names them, and of the others the last part of the
    path. Raises: InvalidRequest if a text names two files."""
    files = InputFiles(paths)
    references = files.references(texts_of(graph))
    named = {each.path for each in references.values()}
    others = {base_name(path) for path in files.paths if path not in named}
    return frozenset({folder_and_name(text)[1] for text in references} | others)


def base_name(path: str) -> str:
    """Returns the last part of a path, also of a directory whose path ends with a slash."""
    return PurePosixPath(path).name


def _may_name_a_file(text: str) -> bool:
    mark = _MARK.search(text)
    is_elsewhere = mark is not None and mark[1] != "input"
    return 0 < len(text) <= _LONGEST_TEXT and text.isprintable() and not is_elsewhere


def _readings(text: str) -> list[_Reading]:
    """Returns the ways to read the text: as a whole, and as a name below a directory `input`."""
    path = _MARK.sub("", text).replace("\\", "/")
    local = _LOCAL_START.match(path)
    is_absolute = path.startswith("/")
    start = re.match(r"(~[^/]*/|\.{1,2}/|[A-Za-z]:/)*", path)
    rest = path[start.end() if start else 0 :]
    readings = [_Reading(before="", parts=_split(rest), is_local=local is not None, is_absolute=is_absolute)]
    before, found, name = f"/{path}".rpartition("/input/")
    if found and name:
        readings.append(_Reading(before=f"{before}{found}"[1:], parts=_split(name), is_local=False))
    return readings


def _reference(path: str, reading: _Reading, end: int, text: str) -> FileReference:
    mark = _MARK.search(text)
    name_parts, after = reading.parts[:end], "".join(f"/{part}" for part in reading.parts[end:])
    is_name = not reading.is_local and all(map(is_safe_name, name_parts))
    return FileReference(
        path=path,
        name="/".join(name_parts) if is_name else base_name(path),
        before=reading.before,
        after=after + (mark[0] if mark else ""),
        is_path=reading.is_local or bool(reading.before),
    )


def _variants(name: str) -> Iterator[str]:
    yield name
    path = PurePosixPath(name)
    for number in range(2, 100_000):
        yield str(path.with_name(f"{path.stem}-{number}{path.suffix}"))


def _split(path: str) -> Parts:
    return tuple(part for part in path.split("/") if part)


def _normal(parts: Parts) -> Parts:
    return tuple(unicodedata.normalize("NFC", part) for part in parts)
