"""A run to JSON and back. The request is apart from the rest: it is written once, the rest at every step."""

from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.model import Run, RunRequest

_requests = TypeAdapter(RunRequest)
_runs = TypeAdapter(Run)


def encode_request(request: RunRequest) -> bytes:
    return _requests.dump_json(request)


def encode_run(run: Run) -> bytes:
    """Everything but the request."""
    return _runs.dump_json(run, exclude={"request"})


def decode_run(request: bytes, run: bytes) -> Run:
    """Raises: StoreError when either is not what the encoders write."""
    try:
        asked = _requests.validate_json(request)
        state: dict[str, Any] = _states.validate_json(run)
        return replace(_runs.validate_python({**state, "request": _EMPTY}), request=asked)
    except (ValidationError, TypeError) as error:
        raise StoreError(f"not the record of a run: {_first_line(error)}") from error


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


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split("\n")[:3])
