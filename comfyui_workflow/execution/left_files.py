"""Finds the files of a prompt that ComfyUI has no record of any more.

How it works. The history of ComfyUI can be cleared, and it ends with the process. The files stay. So the
output directory is searched for files that begin with a filename prefix of the run and were written since the
prompt was sent, by the clock of the instance. A file belongs to the run if ComfyUI's nodes wrote the graph of
the run into it. A file without a graph counts only if it is the only candidate of its node, and no prompt in
the history has made it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from comfyui_workflow.comfyui.client import answer_or_default
from comfyui_workflow.comfyui.history import HistoryEntry
from comfyui_workflow.comfyui.shown_results import file_type
from comfyui_workflow.errors import InvalidGraph, RemoteFileError, RemoteFileMissing, RemoteFilesSilent
from comfyui_workflow.runs.model import OutputFile, Run
from comfyui_workflow.sessions.session import ComfyUISession
from comfyui_workflow.ssh.sftp.files import RemoteFile
from comfyui_workflow.stores.journal import now
from comfyui_workflow.workflows.graph import Graph, output_ids
from comfyui_workflow.workflows.image_metadata import embedded_workflow
from comfyui_workflow.workflows.saved_files import was_saved_by_node

SENT_EARLIER_S = 120.0
"""A prompt may have arrived this long before the recorded time: that time is renewed when the response is
lost."""
CLOCK_TOLERANCE_S = 2.0
MOST_CANDIDATES = 200
_MOST_READ_BYTES = 64 * 1024 * 1024
_MOST_PROMPTS = 50
_MOST_NAMED = 5
FOUND_BY_NAME = (
    "ComfyUI has no record of the prompt any more. Its files were found in the output directory, by their "
    "names, times and contents"
)
_EXECUTE_AGAIN = "Execute the workflow again if you need it"
_PLACEHOLDER = re.compile(r"%[^%/]+%")


@dataclass(frozen=True, kw_only=True)
class LeftFiles:
    """`outputs` belong to the run. `candidates` are names of files that may belong to it."""

    outputs: tuple[OutputFile, ...] = ()
    candidates: tuple[str, ...] = ()
    is_complete: bool = False
    """Every node that saves under a prefix has a file."""
    directory: str | None = None
    """The directory that was searched; None if it is not known or cannot be listed."""


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """The filename prefix of a node: directories below the output directory, and the beginning of the file
    name. ComfyUI replaces placeholders (`%year%`) in both."""

    directories: tuple[str, ...]
    name: str


def prefixes_of(graph: Graph, node_ids: list[str]) -> dict[str, Prefix]:
    """Returns the prefix of each of these nodes that has one in its inputs. A prefix that leads out of the
    output directory is left out."""
    found = {node_id: _prefix(graph[node_id]["inputs"]) for node_id in node_ids}
    return {node_id: prefix for node_id, prefix in found.items() if prefix is not None}


def no_record_sentence(left: LeftFiles) -> str:
    """The message of a run whose prompt ComfyUI no longer knows, and whose files are not all there."""
    may_have_run = (
        "ComfyUI has no record of the prompt any more: while this server could not see it, the history of "
        "ComfyUI was cleared, or the prompt was removed. It may have run"
    )
    if left.outputs:
        return f"{may_have_run} to its end, but only some of its files were found. {_EXECUTE_AGAIN}"
    if left.candidates:
        names = ", ".join(left.candidates[:_MOST_NAMED])
        return (
            f"{may_have_run}, and these files in {left.directory} may be its own: {names}. {_EXECUTE_AGAIN}"
        )
    if left.directory is None:
        return f"{may_have_run}, and its files cannot be searched for. {_EXECUTE_AGAIN}"
    return f"{may_have_run}, but no file of it was found in {left.directory}. {_EXECUTE_AGAIN}"


def find_left_files(session: ComfyUISession, run: Run, sent: Graph | None) -> LeftFiles:
    """`sent` is the graph with the names that the input files have on the instance; None if it is not known
    any more, and then the files are candidates only. Raises: the error of a broken session."""
    planned = {node.node_id for node in run.nodes}
    save_nodes = [each for each in output_ids(run.graph, session.definitions()) if each in planned]
    prefixes = prefixes_of(run.graph, save_nodes)
    directory = session.directories().output_dir or run.comfyui_output_dir
    search = _Search(session, directory, _sent_after(session, run))
    try:
        by_node = {node_id: list(search.candidates(prefix)) for node_id, prefix in prefixes.items()}
    except (RemoteFileError, RemoteFilesSilent):
        return LeftFiles()
    outputs = {
        node_id: search.files_of_run(node_id, found, sent) if sent else []
        for node_id, found in by_node.items()
    }
    return LeftFiles(
        outputs=tuple(output for found in outputs.values() for output in found),
        candidates=tuple(sorted({each.filename for found in by_node.values() for each in found})),
        is_complete=bool(outputs) and all(outputs.values()),
        directory=directory,
    )


class _Search:
    def __init__(self, session: ComfyUISession, directory: str, since: datetime) -> None:
        self._session = session
        self._directory = directory
        self._since = since

    def candidates(self, prefix: Prefix) -> Iterator[OutputFile]:
        """Yields the files of a prefix that were written since the prompt was sent, oldest first. Raises:
        RemoteFileError."""
        found = [
            (each.modified_at, each.name, subfolder)
            for subfolder in self._subfolders("", prefix.directories)
            for each in self._list(subfolder)
            if not each.is_directory and each.size_bytes and _pattern(prefix.name).match(each.name)
        ]
        recent = sorted(each for each in found if each[0] >= self._since)
        for _, name, subfolder in islice(recent, MOST_CANDIDATES):
            yield OutputFile(filename=name, subfolder=subfolder, file_type=file_type(name))

    def files_of_run(self, node_id: str, candidates: list[OutputFile], sent: Graph) -> list[OutputFile]:
        """Returns the files with the graph that was sent. A node writes its files one after another, so the
        search ends at the first file of another prompt after them."""
        found: list[OutputFile] = []
        graphless: list[OutputFile] = []
        for each in candidates:
            graph = self._graph_in(each)
            if graph is None:
                graphless.append(each)
            elif was_saved_by_node(sent, node_id, graph, frozenset()):
                found.append(_of_node(each, node_id))
            elif found:
                break
        if not found and len(graphless) == 1 and not self._is_of_other_prompt(graphless[0]):
            return [_of_node(graphless[0], node_id)]
        return found

    def _subfolders(self, parent: str, directories: tuple[str, ...]) -> Iterator[str]:
        if not directories:
            yield parent
            return
        names = [directories[0]]
        if _PLACEHOLDER.search(directories[0]):
            listed = [each.name for each in self._list(parent) if each.is_directory]
            names = [name for name in listed if _pattern(directories[0]).fullmatch(name)]
        for name in names:
            yield from self._subfolders(str(PurePosixPath(parent, name)), directories[1:])

    def _list(self, subfolder: str) -> tuple[RemoteFile, ...]:
        """Lists a directory below the output directory; empty if it does not exist."""
        try:
            return self._session.connection.files.list(str(PurePosixPath(self._directory, subfolder)))
        except RemoteFileMissing:
            if not subfolder:
                raise
            return ()

    def _graph_in(self, output: OutputFile) -> Mapping[str, Any] | None:
        """Returns the graph in the file that ComfyUI has under this name. None if there is no graph in it."""
        content = bytearray()
        try:
            with self._session.client.view(
                output.filename, subfolder=output.subfolder, folder=output.folder
            ) as viewed:
                for piece in viewed:
                    content += piece
                    if len(content) > _MOST_READ_BYTES:
                        return None
            graph, _ = embedded_workflow(bytes(content))
        except (InvalidGraph, RemoteFileError):
            return None
        return graph if isinstance(graph, dict) else None

    def _is_of_other_prompt(self, output: OutputFile) -> bool:
        recent = answer_or_default(
            lambda: self._session.client.recent_history(_MOST_PROMPTS), list[HistoryEntry]()
        )
        return any(output.key == each.key for entry in recent for each in entry.outputs)


def _of_node(output: OutputFile, node_id: str) -> OutputFile:
    return OutputFile(
        filename=output.filename,
        subfolder=output.subfolder,
        node_id=node_id,
        file_type=output.file_type,
    )


def _sent_after(session: ComfyUISession, run: Run) -> datetime:
    """Returns the earliest time at which the prompt can have been sent, by the clock of the instance."""
    sent_at = run.queue_time
    if run.sent_at is not None:
        sent_at = max(run.queue_time, run.sent_at - timedelta(seconds=SENT_EARLIER_S))
    there = session.client.clock()
    ahead = timedelta() if there is None else there - now()
    return sent_at + ahead - timedelta(seconds=CLOCK_TOLERANCE_S)


def _prefix(inputs: Mapping[str, Any]) -> Prefix | None:
    given = next(
        (value for name, value in inputs.items() if "prefix" in name and isinstance(value, str)), None
    )
    if given is None:
        return None
    parts = [part for part in given.replace("\\", "/").split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        return None
    return Prefix(directories=tuple(parts[:-1]), name=parts[-1])


def _pattern(text: str) -> re.Pattern[str]:
    literals = [re.escape(literal) for literal in _PLACEHOLDER.split(text)]
    return re.compile(".*".join(literals))
