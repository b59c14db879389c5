"""Tells whether a downloaded file was made by the run, or was overwritten by another prompt.

How it works. A node that saves under a fixed name overwrites the file of the prompt before: see
docs/decisions/0009-files-of-one-name.md. Three sources are compared: the modification time of the file with
the execution time of the prompt, both by the clock of the instance; the graph that ComfyUI's nodes write into
pictures; and the prompts that came after ours. No single source makes a run fail: clocks of network disks
differ, and some nodes change the graph before they write it.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from typing import Any

from comfyui_workflow.comfyui.client import answer_or_default
from comfyui_workflow.comfyui.history import HistoryEntry
from comfyui_workflow.comfyui.output_locations import is_outside
from comfyui_workflow.errors import (
    InvalidGraph,
    RemoteFileError,
    RemoteFileOverwritten,
    RemoteFileReplaced,
)
from comfyui_workflow.runs.model import OutputFile, Run
from comfyui_workflow.sessions.session import ComfyUISession
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.image_metadata import embedded_workflow
from comfyui_workflow.workflows.input_files import provided_names
from comfyui_workflow.workflows.saved_files import NUMBERING_CLASSES, was_saved_by_node

CLOCK_TOLERANCE_S = 2.0
"""A file counts as older than its prompt only if it is older by this much."""
_TIMESTAMP_S = 0.001
"""ComfyUI reports times in whole milliseconds."""
_SOON_S = 0.01
"""The next prompt may write this soon after the previous one, and kernel timestamps are this coarse."""
_LARGEST_PICTURE_BYTES = 256 * 1024 * 1024
_PROMPTS_SINCE = 8
_OTHER_PROMPT = "the {} that is there was made by another prompt"


@dataclass(frozen=True, kw_only=True)
class WriteTime:
    """The modification time of a file by the clock of the instance, as a range in seconds."""

    earliest_s: float
    latest_s: float


class OriginCheck:
    """Checks the outputs of one run. Thread-safe."""

    def __init__(self, session: ComfyUISession, run: Run) -> None:
        self._session = session
        self._run = run
        self._input_names = provided_names(run.graph, run.input_files)

    def is_numbered(self, output: OutputFile) -> bool:
        """True if the node never saves twice under one name."""
        return _class_of(self._run.graph, output.node_id) in NUMBERING_CLASSES

    def check(self, output: OutputFile, part: Path, written: WriteTime | None) -> None:
        """`written` is None if the time is unknown. Raises: RemoteFileOverwritten; RemoteFileReplaced for a
        file that existed before the prompt and was made by another one."""
        class_type = _class_of(self._run.graph, output.node_id)
        is_old = _is_older(output, written)
        if is_outside(output) and is_old and not output.is_cached:
            raise RemoteFileError(f"the {output.filename} that is there is older than the prompt")
        if output.is_cached:
            self._refuse_other_result(output, part)
        if class_type in NUMBERING_CLASSES and (output.is_cached or not is_old):
            return
        if not is_old and _is_surely_from_prompt(output, written):
            return
        proof = self._proof(self._run.graph, output, part)
        if proof:
            return
        if is_old:
            self._refuse_old(output, part, proof)
        elif class_type not in NUMBERING_CLASSES:
            self._refuse_overwritten(output, part, proof, class_type)

    def is_proved(self, output: OutputFile, part: Path, written: WriteTime) -> bool:
        """True if the file was made by the run: it was written while the prompt executed, or contains its
        graph. For a file that cannot be compared with ComfyUI's."""
        is_before_end = (
            output.made_before is not None and written.earliest_s <= output.made_before.timestamp()
        )
        if is_before_end and not _is_older(output, written):
            return True
        return self._proof(self._run.graph, output, part) is True

    def _refuse_other_result(self, output: OutputFile, part: Path) -> None:
        """A file of the cache is older than the prompt, so its time tells nothing. Its graph does: the cache
        has results of equal nodes only. Raises: RemoteFileReplaced."""
        executed = self._executed_graph()
        given = self._input_names if executed is self._run.graph else frozenset[str]()
        if self._proof(executed, output, part, given) is False:
            raise RemoteFileReplaced(_OTHER_PROMPT.format(output.filename))

    def _refuse_old(self, output: OutputFile, part: Path, proof: bool | None) -> None:
        if proof is False and self._proof(self._executed_graph(), output, part) is False:
            raise RemoteFileReplaced(_OTHER_PROMPT.format(output.filename))

    def _refuse_overwritten(
        self, output: OutputFile, part: Path, proof: bool | None, class_type: str | None
    ) -> None:
        written = self._exact_write_time(output)
        is_later = written is not None and _is_later(output, written)
        if proof is None and written is not None and not is_later:
            return
        later_prompts = [each for each in self._prompts_since() if not self._is_ours(each)]
        if not later_prompts or (
            proof is False and self._proof(self._executed_graph(), output, part) is True
        ):
            return
        may_be_overwritten = any(_may_have_written(prompt, output, class_type) for prompt in later_prompts)
        if proof is False or (is_later and may_be_overwritten) or (written is None and may_be_overwritten):
            raise RemoteFileOverwritten(
                f"ComfyUI overwrote {output.filename} before it could be fetched: "
                "the next prompt used the same name"
            )

    def _is_ours(self, prompt: HistoryEntry | Graph) -> bool:
        return isinstance(prompt, HistoryEntry) and prompt.prompt_id == self._run.prompt_id

    def _exact_write_time(self, output: OutputFile) -> WriteTime | None:
        """The modification time in nanoseconds, from ComfyUI's web server."""
        if output.made_before is None:
            return None
        with contextlib.suppress(RemoteFileError):
            seen = self._session.client.view_info(
                output.filename, subfolder=output.subfolder, folder=output.folder
            )
            if seen.modified_ns is not None:
                return WriteTime(earliest_s=seen.modified_ns / 1e9, latest_s=seen.modified_ns / 1e9)
        return None

    def _proof(
        self, graph: Graph, output: OutputFile, part: Path, given: frozenset[str] | None = None
    ) -> bool | None:
        """True if the graph in the file matches, False if it does not; None if the file contains no graph.
        `given`: names of input files that can have another name on the instance."""
        if part.stat().st_size > _LARGEST_PICTURE_BYTES:
            return None
        try:
            found, _ = embedded_workflow(part.read_bytes())
        except InvalidGraph:
            return None
        return (
            was_saved_by_node(graph, output.node_id, found, self._input_names if given is None else given)
            if isinstance(found, dict)
            else None
        )

    def _executed_graph(self) -> Graph:
        """The graph as ComfyUI executed it, if ComfyUI still has it: nodes may change a prompt when it
        arrives."""
        entry = answer_or_default(lambda: self._session.client.history(self._run.prompt_id or ""), None)
        return self._run.graph if entry is None or entry.graph is None else entry.graph

    def _prompts_since(self) -> Iterator[HistoryEntry | Graph]:
        """Prompts that executed after ours: some finished ones, which the history lists in order, and the
        running ones."""
        client, ours = self._session.client, self._run.prompt_id
        recent = answer_or_default(lambda: client.recent_history(_PROMPTS_SINCE), list[HistoryEntry]())
        is_in_history = any(entry.prompt_id == ours for entry in recent)
        yield from dropwhile(lambda entry: is_in_history and entry.prompt_id != ours, recent)
        yield from answer_or_default(client.running_graphs, dict[str, Graph]()).values()


def _class_of(graph: Graph, node_id: str) -> str | None:
    """None for a node that is not in the graph: another node created it during execution."""
    node: Any = graph.get(node_id)
    return node["class_type"] if node else None


def _may_have_written(prompt: HistoryEntry | Graph, output: OutputFile, class_type: str | None) -> bool:
    """True if the prompt made a file of that name, or may be making one."""
    if isinstance(prompt, HistoryEntry):
        return any(each.key == output.key for each in prompt.outputs)
    return any(isinstance(node, dict) and node.get("class_type") == class_type for node in prompt.values())


def _is_older(output: OutputFile, written: WriteTime | None) -> bool:
    if written is None or output.made_after is None:
        return False
    return written.latest_s < output.made_after.timestamp() - CLOCK_TOLERANCE_S


def _is_surely_from_prompt(output: OutputFile, written: WriteTime | None) -> bool:
    """True if the file was written before any other prompt could start."""
    if written is None or output.made_before is None:
        return False
    return written.latest_s <= output.made_before.timestamp() - _SOON_S


def _is_later(output: OutputFile, written: WriteTime) -> bool:
    if output.made_before is None:
        return False
    return written.earliest_s > output.made_before.timestamp() + _TIMESTAMP_S
