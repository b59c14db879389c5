"""Files that a graph names: names, the directories in which ComfyUI looks for them, and presence."""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.node_definitions import Definitions, InputDefinition
from comfyui_workflow.workflows.validation.live_inputs import live_definition

_FOLDER_MARKS = {"[output]": "output", "[input]": "input", "[temp]": "temp"}
_ASSET_HASH = re.compile("blake3:[0-9a-f]{64}")
_FILES_WITHOUT_A_BUTTON = {("LoadLatent", "latent"), ("WebcamCapture", "image")}
"""ComfyUI's own inputs that name a file although they have no upload button."""


@dataclass(frozen=True, kw_only=True)
class ReferencedFile:
    """A file that an input names: `name` is relative to ComfyUI's directory `folder` ("input", "output",
    "temp")."""

    node_id: str
    class_type: str
    input_name: str
    value: str
    folder: str
    name: str
    is_listed: bool
    """True if the file is one of the choices of the class."""


class Presence(StrEnum):
    PROVIDED = "provided"
    FOUND = "found"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class KnownFiles:
    """Files that are known to exist on the instance when the graph runs."""

    provided: frozenset[str] = frozenset()
    """Names, as in the graph, of the files that are sent with the request; they are uploaded to the input
    directory."""
    found: frozenset[tuple[str, str]] = frozenset()
    """(folder, name) of files that exist on the instance."""
    is_asked: bool = False
    """True if all files of `referenced_files` were looked up: a file that is not in `found` is missing."""

    def presence(self, folder: str, name: str) -> Presence:
        if folder == "input" and name in self.provided:
            return Presence.PROVIDED
        if (folder, name) in self.found:
            return Presence.FOUND
        return Presence.ABSENT if self.is_asked and is_plain(name) else Presence.UNKNOWN


def referenced_files(graph: Graph, definitions: Definitions) -> tuple[ReferencedFile, ...]:
    """Returns the files that file inputs name, one entry for each use. Paths outside ComfyUI's directories
    are left out: they cannot be looked up."""
    return tuple(_files_named(graph, definitions))


def _files_named(graph: Graph, definitions: Definitions) -> Iterator[ReferencedFile]:
    for node_id, node in graph.items() if isinstance(graph, dict) else ():
        class_type = node.get("class_type") if isinstance(node, dict) else None
        definition = definitions.get(class_type) if isinstance(class_type, str) else None
        inputs = node.get("inputs") if definition is not None else None
        if definition is None or not isinstance(inputs, dict):
            continue
        for declared in live_definition(definition, inputs).inputs:
            if declared.name in inputs and names_files(definition.class_type, declared):
                for value in names_in(inputs[declared.name]):
                    folder, name = folder_and_name(value)
                    if is_plain(name):
                        yield ReferencedFile(
                            node_id=str(node_id),
                            class_type=definition.class_type,
                            input_name=declared.name,
                            value=value,
                            folder=folder,
                            name=name,
                            is_listed=value in (declared.choices or ()),
                        )


def names_files(class_type: str, declared: InputDefinition) -> bool:
    return declared.is_file or (class_type, declared.name) in _FILES_WITHOUT_A_BUTTON


def folder_and_name(value: str) -> tuple[str, str]:
    """Returns (folder, name). ComfyUI allows the directory after the name: `photo.png [output]`."""
    for mark, folder in _FOLDER_MARKS.items():
        if value.endswith(mark):
            return folder, value[: -len(mark) - 1]
    return "input", value


def is_asset_hash(value: object) -> bool:
    """True for the hash of a file that ComfyUI manages as an asset. Newer versions take it in place of a
    name."""
    return isinstance(value, str) and _ASSET_HASH.fullmatch(value) is not None


def is_plain(name: str) -> bool:
    """True for a normalized relative path that stays inside the directory."""
    return (
        bool(name)
        and name.isprintable()
        and posixpath.normpath(name) == name
        and not name.startswith(("/", ".."))
        and name != "."
        and "\\" not in name
    )


def names_in(given: Any) -> Iterator[str]:
    """Yields the names in the value of a file input: one text, or a wrapped list; a bare list is a link."""
    if isinstance(given, str):
        yield given
    elif isinstance(given, dict):
        yield from texts_in(given.get("__value__"))


def texts_in(value: Any) -> Iterator[str]:
    """Yields all texts in the value, at any depth of lists and objects."""
    stack = [value]
    while stack:
        match stack.pop():
            case str() as text:
                yield text
            case list() as several:
                stack.extend(reversed(several))
            case dict() as named:
                stack.extend(reversed(named.values()))


def unused(graph: Graph, provided: frozenset[str]) -> list[str]:
    """Returns the files of the request that no input of any node names, in any directory."""
    left = set(provided)
    for node in graph.values() if left and isinstance(graph, dict) else ():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        for text in texts_in(inputs):
            _, name = folder_and_name(text)
            left -= {text, name, posixpath.basename(name.replace("\\", "/"))}
    return sorted(left)
