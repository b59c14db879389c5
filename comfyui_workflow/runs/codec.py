"""A run to JSON and back. The request and the prepared graph are apart from the rest: they are written once,
the rest at every step."""

from dataclasses import replace
from math import inf
from typing import Any

from pydantic import TypeAdapter, ValidationError

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.model import Graph, Run, RunRequest

_requests = TypeAdapter(RunRequest)
_runs = TypeAdapter(Run)
_graphs: TypeAdapter[Graph] = TypeAdapter(Graph)


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


def _is_sound(run: Run) -> bool:
    """What types do not say: times that can be compared and shown in any zone, percentages that are some."""
    asked = run.request
    times = (run.queue_time, run.last_update, run.start_time, run.end_time, run.gpu_since, asked.not_before)
    are_times = all(at is None or (at.tzinfo is not None and 1 < at.year < 9999) for at in times)
    return are_times and 0 <= run.gpu_s < inf and all(0 <= node.progress <= 100 for node in run.nodes)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split("\n")[:3])
