"""The files that a graph names: which, where ComfyUI looks for them, and whether they will be there."""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.node_definitions import Definitions, InputDefinition

_FOLDER_MARKS = {"[output]": "output", "[input]": "input", "[temp]": "temp"}
_FILES_WITHOUT_A_BUTTON = {("LoadLatent", "latent"), ("WebcamCapture", "image")}
"""ComfyUI's own inputs that name a file although there is no button to bring one."""


@dataclass(frozen=True, kw_only=True)
class FileNamed:
    """A file that an input names: `name` below the directory `folder` of ComfyUI."""

    node_id: str
    class_type: str
    input_name: str
    value: str
    folder: str
    name: str
    is_listed: bool
    """The class names it among its choices."""


class Presence(StrEnum):
    PROVIDED = "provided"
    FOUND = "found"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class FilesKnown:
    """Which files will be there when the graph runs."""

    provided: frozenset[str] = frozenset()
    """Names of the files that come with the request; they go to the input directory."""
    found: frozenset[tuple[str, str]] = frozenset()
    """(folder, name) of those that the instance has."""
    is_asked: bool = False
    """The instance was asked for all that `files_named` gives: what was not found is not there."""

    def presence(self, folder: str, name: str) -> Presence:
        if folder == "input" and name in self.provided:
            return Presence.PROVIDED
        if (folder, name) in self.found:
            return Presence.FOUND
        return Presence.ABSENT if self.is_asked and is_plain(name) else Presence.UNKNOWN


def files_named(graph: Graph, definitions: Definitions) -> tuple[FileNamed, ...]:
    """Every file that an input for files names, each time it does. Paths that lead out of ComfyUI's
    directories are not among them: nobody could ask for those."""
    return tuple(_files_named(graph, definitions))


def _files_named(graph: Graph, definitions: Definitions) -> Iterator[FileNamed]:
    for node_id, node in graph.items() if isinstance(graph, dict) else ():
        class_type = node.get("class_type") if isinstance(node, dict) else None
        definition = definitions.get(class_type) if isinstance(class_type, str) else None
        inputs = node.get("inputs") if definition is not None else None
        if definition is None or not isinstance(inputs, dict):
            continue
        for declared in definition.inputs:
            if declared.name in inputs and names_files(definition.class_type, declared):
                for value in names_in(inputs[declared.name]):
                    folder, name = place(value)
                    if is_plain(name):
                        yield FileNamed(
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


def place(value: str) -> tuple[str, str]:
    """(folder, name): ComfyUI allows the directory behind the name, `photo.png [output]`."""
    for mark, folder in _FOLDER_MARKS.items():
        if value.endswith(mark):
            return folder, value[: -len(mark) - 1]
    return "input", value


def is_plain(name: str) -> bool:
    """A path as everybody writes it: that of one file, below the directory."""
    return (
        bool(name)
        and name.isprintable()
        and posixpath.normpath(name) == name
        and not name.startswith(("/", ".."))
        and name != "."
        and "\\" not in name
    )


def names_in(given: Any) -> Iterator[str]:
    """The names that an input for files has been given: one, or several wrapped; a bare list is a link."""
    if isinstance(given, str):
        yield given
    elif isinstance(given, dict):
        yield from texts_in(given.get("__value__"))


def texts_in(value: Any) -> Iterator[str]:
    """A text, or those in a list or an object, however deep."""
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
    """The files that come along although no input of any node names them, wherever it means them to be."""
    left = set(provided)
    for node in graph.values() if left and isinstance(graph, dict) else ():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        for text in texts_in(inputs):
            _, name = place(text)
            left -= {text, name, posixpath.basename(name.replace("\\", "/"))}
    return sorted(left)
