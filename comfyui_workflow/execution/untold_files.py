"""Finds files that an output node saved without telling ComfyUI of them.

How it works. The texts among the inputs of the node (a prefix, a file name, a directory) are looked up in the
output directory. A file whose path begins with such a text, and which was written while the prompt ran, was
saved by this node. ComfyUI executes one prompt at a time.
"""

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from comfyui_workflow.comfyui.folders import Directories
from comfyui_workflow.comfyui.history import HistoryEntry
from comfyui_workflow.comfyui.output_locations import located
from comfyui_workflow.comfyui.shown_results import file_type
from comfyui_workflow.errors import RemoteFileError, RemoteFilesSilent
from comfyui_workflow.files.atomic_placement import safe_relative_path
from comfyui_workflow.runs.model import OutputFile
from comfyui_workflow.ssh.sftp.files import RemoteFile
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.saved_files import NUMBERING_CLASSES

MOST_FILES = 1000
_LONGEST_NAME = 500
_TIMESTAMP_S = 1.0
"""SFTP gives times in whole seconds."""


class RemoteDirectory(Protocol):
    def list(self, path: str) -> tuple[RemoteFile, ...]: ...


@dataclass(frozen=True)
class UntoldFiles:
    """Looks in `directory`, ComfyUI's output directory on the instance."""

    files: RemoteDirectory
    graph: Graph
    directory: str
    entry: HistoryEntry
    _listed: dict[str, tuple[RemoteFile, ...]] = field(default_factory=dict)

    def of(self, node_id: str) -> list[OutputFile]:
        """Returns at most MOST_FILES files of the node. Raises: ConnectionFailed."""
        node = self.graph.get(node_id, {})
        if node.get("class_type") in NUMBERING_CLASSES:  # ComfyUI's own nodes tell their files
            return []
        found = {path: None for name in _names(self.graph, node_id) for path in self._matching(node_id, name)}
        outputs = (self._output(node_id, path) for path in list(found)[:MOST_FILES])
        return [output for output in outputs if safe_relative_path(output) is not None]

    def _matching(self, node_id: str, name: str) -> Iterator[str]:
        """Yields the paths of the files that `name` names: exactly, as a prefix, or as their directory."""
        path = posixpath.normpath(posixpath.join(self.directory, name))
        is_directory = name.endswith("/") or path == posixpath.normpath(self.directory)
        parent, prefix = (path, "") if is_directory else posixpath.split(path)
        for file in self._list(parent):
            if not file.name.startswith(prefix):
                continue
            if not file.is_directory:
                if self._is_made_by_prompt(node_id, file, is_exact=file.name == prefix):
                    yield posixpath.join(parent, file.name)
            elif prefix and file.name == prefix:
                yield from self._matching(node_id, f"{path}/")

    def _list(self, directory: str) -> tuple[RemoteFile, ...]:
        if directory not in self._listed:
            try:
                self._listed[directory] = self.files.list(directory)
            except (RemoteFileError, RemoteFilesSilent):
                self._listed[directory] = ()
        return self._listed[directory]

    def _is_made_by_prompt(self, node_id: str, file: RemoteFile, *, is_exact: bool) -> bool:
        """A cached node made its file in an earlier prompt: only the exact name tells which it is."""
        if node_id in self.entry.cached:
            return is_exact
        after, before = self.entry.window
        if after is None or before is None:
            return False
        written_s = file.modified_at.timestamp()
        return after.timestamp() - _TIMESTAMP_S <= written_s <= before.timestamp() + _TIMESTAMP_S

    def _output(self, node_id: str, path: str) -> OutputFile:
        after, before = self.entry.window
        directory, name = posixpath.split(path)
        told = OutputFile(filename=name, subfolder=directory, node_id=node_id, file_type=file_type(name))
        known = Directories(output_dir=self.directory)
        is_cached = node_id in self.entry.cached
        return replace(
            located(told, lambda: known), made_after=after, made_before=before, is_cached=is_cached
        )


def _names(graph: Graph, node_id: str) -> Iterator[str]:
    """Yields the texts that may name the node's files: its own, and those of the nodes linked to it. A text
    ends at the first placeholder (`%date%`)."""
    node = graph.get(node_id, {})
    for value in _inputs(node).values():
        match value:
            case str():
                yield from _name(value)
            case [str() as source, int()] if source in graph:
                for text in _inputs(graph[source]).values():
                    yield from _name(text)


def _name(value: object) -> Iterator[str]:
    if isinstance(value, str) and len(value) <= _LONGEST_NAME and "\n" not in value:
        name = value.replace("\\", "/").partition("%")[0].strip()
        if name and not name.startswith("..") and name not in ("/", "."):
            yield name


def _inputs(node: Mapping[str, Any]) -> Mapping[str, Any]:
    return node.get("inputs") or {}
