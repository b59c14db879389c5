"""Finds files that an output node saved without telling ComfyUI of them.

How it works. The texts among the inputs of the node (a prefix, a file name, a directory) are looked up in the
output directory. A file whose path begins with such a text, and which was written while the prompt ran, was
saved by this node. ComfyUI executes one prompt at a time.

A text is known up to its first placeholder (`%date%`, `[time(%Y)]`, `{seed}`), and a name that another node
makes is not known at all; nor is the name of a file whose list is empty, or was lost. There, all files and
directories below the known part are searched.
"""

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from comfyui_workflow.comfyui.folders import Directories
from comfyui_workflow.comfyui.history import HistoryEntry
from comfyui_workflow.comfyui.output_locations import located
from comfyui_workflow.comfyui.shown_results import file_type
from comfyui_workflow.errors import RemoteFileError, RemoteFilesSilent
from comfyui_workflow.files.atomic_placement import safe_relative_path
from comfyui_workflow.parsing.untrusted import as_list, as_object
from comfyui_workflow.runs.model import OutputFile
from comfyui_workflow.ssh.sftp.files import RemoteFile
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.saved_files import NUMBERING_CLASSES

MOST_FILES = 1000
MOST_DIRECTORIES = 200
"""Directories that are listed for one prompt."""
_LONGEST_NAME = 500
_TIMESTAMP_S = 1.0
"""SFTP gives times in whole seconds."""
_KERNEL_TICK_S = 0.02
"""The kernel writes times of files that may be older than the clock by this much."""
_PLACEHOLDER = re.compile(r"[%\[{]")
_NAMES_A_FILE = re.compile("path|dir|folder|file|prefix|name", re.IGNORECASE)
"""An input of a node that saves."""
_FURTHER_LEVELS = 2
"""Directories that another input of the node may add."""


class RemoteDirectory(Protocol):
    def list(self, path: str) -> tuple[RemoteFile, ...]: ...


@dataclass(frozen=True)
class UntoldFiles:
    """Looks in `directory`, ComfyUI's output directory on the instance."""

    files: RemoteDirectory
    graph: Graph
    directory: str
    entry: HistoryEntry
    written_s: Callable[[OutputFile], float | None]
    """Returns the exact time at which a file was written; infinity if that is not known."""
    _listed: dict[str, tuple[RemoteFile, ...]] = field(default_factory=dict)

    def of(self, node_id: str) -> list[OutputFile]:
        """Returns at most MOST_FILES files of the node. Raises: ConnectionFailed."""
        node = self.graph.get(node_id, {})
        if node.get("class_type") in NUMBERING_CLASSES:  # ComfyUI's own nodes tell their files
            return []
        found = {path: None for name in _names(self.graph, node_id) for path in self._matching(node_id, name)}
        templates = [*_templates(self.graph, node_id)]
        if _has_lost_files(self.entry.ui.get(node_id)):
            templates.append(_Template("", _FURTHER_LEVELS))
        for template in [] if found else templates:
            found |= dict.fromkeys(self._of_template(node_id, template))
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
                found = posixpath.join(parent, file.name)
                if self._is_made_by_prompt(node_id, found, file, is_exact=file.name == prefix):
                    yield found
            elif prefix and file.name == prefix:
                yield from self._matching(node_id, f"{path}/")

    def _of_template(self, node_id: str, template: "_Template") -> Iterator[str]:
        """Yields the paths of the files below the known part of a name."""
        path = posixpath.normpath(posixpath.join(self.directory, template.known))
        parent, prefix = (path, "") if template.known[-1:] in ("", "/") else posixpath.split(path)
        is_general = template.known.startswith("/") and not prefix and parent.count("/") < 2  # `/tmp`
        if not is_general:
            yield from self._below(node_id, parent, prefix, template.levels)

    def _below(self, node_id: str, directory: str, prefix: str, levels: int) -> Iterator[str]:
        """The newest directories come first: the number of listed ones is limited."""
        for file in sorted(self._list(directory), key=lambda each: each.modified_at, reverse=True):
            path = posixpath.join(directory, file.name)
            if not file.name.startswith(prefix):
                continue
            if file.is_directory:
                yield from self._below(node_id, path, "", levels - 1) if levels else ()
            elif self._is_made_by_prompt(node_id, path, file, is_exact=False):
                yield path

    def _list(self, directory: str) -> tuple[RemoteFile, ...]:
        if directory not in self._listed:
            if len(self._listed) >= MOST_DIRECTORIES:
                return ()
            try:
                self._listed[directory] = self.files.list(directory)
            except (RemoteFileError, RemoteFilesSilent):
                self._listed[directory] = ()
        return self._listed[directory]

    def _is_made_by_prompt(self, node_id: str, path: str, file: RemoteFile, *, is_exact: bool) -> bool:
        """A cached node made its file in an earlier prompt: only the exact name tells which it is."""
        if node_id in self.entry.cached:
            return is_exact
        after, before = self.entry.window
        if after is None or before is None:
            return False
        written_s, after_s = file.modified_at.timestamp(), after.timestamp()
        if not after_s - _TIMESTAMP_S <= written_s <= before.timestamp() + _TIMESTAMP_S:
            return False
        # in the second in which the prompt began, the prompt before may have written files, too
        exact_s = self.written_s(self._output(node_id, path)) if written_s < after_s else written_s
        return exact_s is None or exact_s >= after_s - _KERNEL_TICK_S

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


@dataclass(frozen=True)
class _Template:
    """A name of files that is known in part only: below `known`, up to `levels` directories deep."""

    known: str
    levels: int


def _has_lost_files(shown: object) -> bool:
    """True if a node that saves files tells ComfyUI of none: the list is empty, or it has the keys of an
    object, whose values are lost."""
    return any(listed == [] or "filename" in as_list(listed) for listed in as_object(shown).values())


def _templates(graph: Graph, node_id: str) -> Iterator[_Template]:
    """Yields the names with placeholders among the node's inputs, and those that another node makes."""
    for input_name, value in _inputs(graph.get(node_id, {})).items():
        if not _NAMES_A_FILE.search(input_name):
            continue
        if isinstance(value, list):
            yield _Template("", _FURTHER_LEVELS)
        elif isinstance(value, str) and len(value) <= _LONGEST_NAME and "\n" not in value:
            text = value.replace("\\", "/").strip()
            placeholder = _PLACEHOLDER.search(text)
            if placeholder is not None and not text.startswith(".."):
                rest = text[placeholder.start() :]
                yield _Template(text[: placeholder.start()], rest.count("/") + _FURTHER_LEVELS)


def _name(value: object) -> Iterator[str]:
    if isinstance(value, str) and len(value) <= _LONGEST_NAME and "\n" not in value:
        name = value.replace("\\", "/").partition("%")[0].strip()
        if name and not name.startswith("..") and name not in ("/", "."):
            yield name


def _inputs(node: Mapping[str, Any]) -> Mapping[str, Any]:
    return node.get("inputs") or {}
