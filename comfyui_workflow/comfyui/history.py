"""Reads an entry of `/history`: how a prompt ended, and its outputs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from typing import Any

from comfyui_workflow.comfyui.queue import PromptMark, read_mark
from comfyui_workflow.comfyui.shown_results import ShownPath, ShownResults, read_shown
from comfyui_workflow.parsing.untrusted import as_list, as_object, as_text
from comfyui_workflow.runs.model import OutputFile
from comfyui_workflow.workflows.graph import Graph

MOST_OUTPUTS = 50_000
"""Limit per prompt: each output is a file to download and an entry of the record."""
LATEST_MS = 250_000_000_000_000
"""A little before the last day that a `datetime` can represent."""


MOST_PATHS = 100
"""Limit per prompt: each text that looks like a path is looked for on the instance."""


_FRAMES = 2
_MOST_TRACEBACK = 2000


Window = tuple[datetime | None, datetime | None]
"""Start and end of a prompt, by the clock of the instance."""


class Outcome(StrEnum):
    SUCCESS = "success"
    ERROR = "error"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, kw_only=True)
class HistoryEntry:
    prompt_id: str
    outcome: Outcome
    outputs: tuple[OutputFile, ...]
    mark: PromptMark | None = None
    """The mark that the submitting server process wrote, if it was one of ours."""
    error_message: str | None = None
    error_type: str | None = None
    failed_node_id: str | None = None
    failed_node_type: str | None = None
    failed_lines: str = ""
    """The end of the traceback of the failure: the lines of code that raised it."""
    ui: Mapping[str, Any] = field(default_factory=dict)
    """UI output of each node by node id, as ComfyUI reports it."""
    paths: tuple[ShownPath, ...] = ()
    """Shown texts that may be paths of files, at most MOST_PATHS."""
    window: Window = (None, None)
    cached: frozenset[str] = frozenset()
    """Nodes whose results came from ComfyUI's cache."""
    execution_began_at: datetime | None = None
    execution_s: float | None = None
    """Both times are by ComfyUI's own clock; None if this version does not report them."""
    graph: Graph | None = None
    """The graph that was executed."""


def read_history(prompt_id: str, entry: Mapping[str, Any]) -> HistoryEntry:
    """Reads one entry. `status_str` alone is not reliable: a cycle found at run time gives "success", an
    interrupt gives "error". So the messages decide; versions before August 2024 have no messages, and there
    the status decides. Returns at most MOST_OUTPUTS + 1 outputs, so that the caller can detect too many."""
    status = as_object(entry.get("status"))
    messages = dict(_messages(status.get("messages")))
    failure = messages.get("execution_error") or messages.get("execution_interrupted") or {}
    began_ms, ended_ms = _execution_ms(messages)
    window, cached = _window(began_ms, ended_ms), _cached_nodes(messages)
    shown = [read_shown(node_id, ui) for node_id, ui in as_object(entry.get("outputs")).items()]
    return HistoryEntry(
        prompt_id=prompt_id,
        outcome=_outcome(status, messages),
        outputs=tuple(islice(_outputs(shown, window, cached), MOST_OUTPUTS + 1)),
        paths=tuple(islice((path for each in shown for path in each.paths), MOST_PATHS)),
        window=window,
        cached=cached,
        mark=read_mark(entry.get("prompt")),
        error_message=as_text(failure.get("exception_message")),
        error_type=as_text(failure.get("exception_type")),
        failed_node_id=as_text(failure.get("node_id")),
        failed_node_type=as_text(failure.get("node_type")),
        failed_lines=_last_lines(failure.get("traceback")),
        ui=as_object(entry.get("outputs")),
        graph=_graph(entry.get("prompt")),
        execution_began_at=None if began_ms is None else datetime.fromtimestamp(began_ms / 1000, UTC),
        execution_s=None if began_ms is None else (ended_ms - began_ms) / 1000,
    )


def merged(entry: HistoryEntry, later: HistoryEntry) -> HistoryEntry:
    """Returns one entry for a prompt and the one that it has queued: the results of both, and the outcome of
    the later one. Texts that a node shows in both are joined."""
    texts = {output.key: output.text for output in entry.outputs if output.text is not None}
    ours = [output for output in entry.outputs if output.text is None or output.key not in _keys(later)]
    theirs = [
        replace(output, text=f"{texts[output.key]}\n{output.text}") if output.key in texts else output
        for output in later.outputs
    ]
    is_timed = entry.execution_s is not None and later.execution_s is not None
    return replace(
        later,
        prompt_id=entry.prompt_id,
        outputs=(*ours, *theirs)[: MOST_OUTPUTS + 1],
        mark=entry.mark,
        ui={**entry.ui, **later.ui},
        paths=(*entry.paths, *later.paths)[:MOST_PATHS],
        window=(entry.window[0], later.window[1]),
        cached=entry.cached & later.cached,
        execution_began_at=entry.execution_began_at,
        execution_s=(entry.execution_s or 0) + (later.execution_s or 0) if is_timed else None,
    )


def _keys(entry: HistoryEntry) -> frozenset[tuple[str, str, str]]:
    return frozenset(output.key for output in entry.outputs)


def wanted_outputs(outputs: tuple[OutputFile, ...], include_previews: bool) -> tuple[OutputFile, ...]:
    """Removes previews (files in the temp directory) unless they are wanted. A file that several nodes list
    becomes one output."""
    by_key: dict[tuple[str, str, str], OutputFile] = {}
    for output in outputs:
        if include_previews or output.folder != "temp":
            by_key[output.key] = _listed_again(by_key.get(output.key), output)
    return tuple(by_key.values())


def _listed_again(known: OutputFile | None, output: OutputFile) -> OutputFile:
    """Adds the node that listed the file before to the output."""
    if known is None:
        return output
    nodes = dict.fromkeys((known.node_id, *known.other_node_ids))
    nodes.pop(output.node_id, None)
    return replace(output, other_node_ids=tuple(nodes))


def _graph(item: object) -> Graph | None:
    """Returns the graph of a queue item; history entries contain the item, too."""
    match item:
        case [_, _, dict() as graph, *_]:
            return graph
    return None


def _outcome(status: Mapping[str, Any], messages: Mapping[str, Any]) -> Outcome:
    if "execution_interrupted" in messages:
        return Outcome.INTERRUPTED
    if "execution_error" in messages:
        return Outcome.ERROR
    return Outcome.SUCCESS if status.get("status_str", "success") == "success" else Outcome.ERROR


def _last_lines(traceback: object) -> str:
    frames = [frame for frame in as_list(traceback)[-_FRAMES:] if isinstance(frame, str)]
    return "".join(frames)[-_MOST_TRACEBACK:]


def _execution_ms(messages: Mapping[str, Mapping[str, Any]]) -> tuple[float | None, float]:
    """Returns start and end in milliseconds, if they are plausible."""
    ends = ("execution_success", "execution_error", "execution_interrupted")
    began = messages.get("execution_start", {}).get("timestamp")
    ended = next((messages[end].get("timestamp") for end in ends if end in messages), None)
    match began, ended:
        case int() | float(), int() | float() if 0 <= began <= ended < LATEST_MS:
            return began, ended
    return None, 0.0


def _messages(messages: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for message in as_list(messages):
        match message:
            case [str() as kind, dict() as data]:
                yield kind, data


def _outputs(shown: Iterable[ShownResults], window: Window, cached: frozenset[str]) -> Iterator[OutputFile]:
    after, before = window
    for each in shown:
        for file in each.files:
            is_cached = file.node_id in cached
            yield replace(file, made_after=after, made_before=before, is_cached=is_cached)
        if each.text is not None:
            yield each.text


def _window(began_ms: float | None, ended_ms: float) -> Window:
    if began_ms is None:
        return None, None
    return datetime.fromtimestamp(began_ms / 1000, UTC), datetime.fromtimestamp(ended_ms / 1000, UTC)


def _cached_nodes(messages: Mapping[str, Mapping[str, Any]]) -> frozenset[str]:
    nodes = as_list(messages.get("execution_cached", {}).get("nodes"))
    return frozenset(node for node in nodes if isinstance(node, str))
