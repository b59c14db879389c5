"""A run to JSON and back. The request and the prepared graph are apart from the rest: they are written once,
the rest at every step. And its summary, in one line."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.batch import Batch
from comfyui_workflow.runs.model import Graph, Run, RunRequest
from comfyui_workflow.runs.summary import RunSummary

_requests = TypeAdapter(RunRequest)
_runs = TypeAdapter(Run)
_graphs: TypeAdapter[Graph] = TypeAdapter(Graph)
_summaries = TypeAdapter(RunSummary)


def encode_request(request: RunRequest) -> bytes:
    return _requests.dump_json(request)


def encode_graph(graph: Graph) -> bytes:
    return _graphs.dump_json(graph)


def encode_run(run: Run) -> bytes:
    """Everything but the request and the prepared graph."""
    return _runs.dump_json(run, exclude={"request", "prepared_graph"})


def decode_run(request: bytes, run: bytes, prepared_graph: bytes | None = None) -> Run:
    """Raises: StoreError when either is not what the encoders write."""
    try:
        asked = _requests.validate_json(request)
        prepared = None if prepared_graph is None else _graphs.validate_json(prepared_graph)
        state: dict[str, Any] = _states.validate_json(run)
        decoded = replace(
            _runs.validate_python({**state, "request": _EMPTY}), request=asked, prepared_graph=prepared
        )
    except (ValidationError, TypeError) as error:
        raise StoreError(f"not the record of a run: {_first_line(error)}") from error
    if not _is_sound(decoded):
        raise StoreError("not the record of a run: a time or a percentage in it is none")
    return decoded


def encode_summary(summary: RunSummary) -> bytes:
    """Without a line break."""
    return _summaries.dump_json(summary, exclude_defaults=True)


def decode_summary(line: bytes) -> RunSummary:
    """Raises: StoreError when it is not what the encoder writes."""
    try:
        summary = _summaries.validate_json(line)
    except ValidationError as error:
        raise StoreError(f"not the summary of a run: {_first_line(error)}") from error
    if not _is_sound_summary(summary):
        raise StoreError("not the summary of a run: a time or a number in it is none")
    return summary


def encode_batch(batch: Batch) -> bytes:
    return _batches.dump_json(batch)


def decode_batch(content: bytes) -> Batch:
    """Raises: StoreError."""
    try:
        return _batches.validate_json(content)
    except ValidationError as error:
        raise StoreError(f"not the record of a batch: {_first_line(error)}") from error


_batches = TypeAdapter(Batch)
_states = TypeAdapter(dict[str, Any])
_EMPTY = RunRequest(
    ssh_connection="",
    graph={},
    workflow_name="",
    output_dir="",
    comfyui_port=1,
    comfyui_input_dir="",
    comfyui_output_dir="",
)


_MOST = 1e12
"""More seconds, and more of any currency, than there are."""


def _is_sound(run: Run) -> bool:
    """What types do not say: times that can be compared and shown in any zone, percentages that are some."""
    asked = run.request
    times = (run.queue_time, run.last_update, run.start_time, run.end_time, run.gpu_since, asked.not_before)
    price = None if run.placement is None else run.placement.price_per_hour
    return (
        _are_times(times)
        and _are_amounts((run.gpu_s, price))
        and all(0 <= node.progress <= 100 for node in run.nodes)
    )


def _is_sound_summary(line: RunSummary) -> bool:
    times = (line.queue_time, line.last_update, line.start_time, line.end_time, line.gpu_since)
    return (
        _are_times(times)
        and _are_amounts((line.gpu_s, line.price_per_hour))
        and 0 <= line.completed_nodes <= line.total_nodes
    )


def _are_times(given: Iterable[datetime | None]) -> bool:
    return all(at is None or (at.tzinfo is not None and 1 < at.year < 9999) for at in given)


def _are_amounts(given: Iterable[float | None]) -> bool:
    return all(amount is None or 0 <= amount < _MOST for amount in given)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split("\n")[:3])
