"""Serializes runs, requests, batches and summaries to JSON, and parses them.

The request and the prepared graph are separate records: they are written once. The rest of a run is a log of
changes. The workflow of a request is separate if many runs share it. A summary is one line.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.batch import Batch
from comfyui_workflow.runs.changes import newest_state, with_changes
from comfyui_workflow.runs.credentials import NO_SECRETS, RequestSecrets
from comfyui_workflow.runs.model import (
    NAME_IN_RECORDS,
    NodeProgress,
    OutputFile,
    Placement,
    Run,
    RunRequest,
    Stay,
)
from comfyui_workflow.runs.parts import PartState
from comfyui_workflow.runs.summary import RunSummary
from comfyui_workflow.runs.target import AnyInstance, Target, target_of_record
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.model import Workflow

_requests = cache(lambda: TypeAdapter(RunRequest))
_runs = cache(lambda: TypeAdapter(Run))
_workflows = cache(lambda: TypeAdapter(Workflow))
_graphs = cache(lambda: TypeAdapter[Graph](Graph))
_nodes = cache(lambda: TypeAdapter(tuple[NodeProgress, ...]))
_outputs = cache(lambda: TypeAdapter(tuple[OutputFile, ...]))
_summaries = cache(lambda: TypeAdapter(RunSummary))


def encode_request(request: RunRequest, *, has_workflow: bool = True) -> bytes:
    """A flat JSON object, with or without the workflow. The target is stored as the text that the user
    wrote."""
    target = _TargetTexts(ssh_connection=request.ssh_connection, instance_id=request.instance_id)
    others = _requests().dump_json(request, exclude={"target", "workflow", "secrets"})
    rest = _merged(_target_texts().dump_json(target), others)
    return _merged(rest, encode_workflow(request.workflow)) if has_workflow else rest


def encode_workflow(workflow: Workflow) -> bytes:
    return _workflows().dump_json(workflow)


def decode_workflow(content: bytes) -> Workflow:
    """Raises: StoreError."""
    try:
        return _workflows().validate_json(content)
    except ValidationError as error:
        raise StoreError(f"not the workflow of a run: {_first_line(error)}") from error


def encode_graph(graph: Graph) -> bytes:
    return _graphs().dump_json(graph)


def decode_graph(content: bytes) -> Graph:
    """Raises: StoreError."""
    try:
        return _graphs().validate_json(content)
    except ValidationError as error:
        raise StoreError(f"not the graph of a run: {_first_line(error)}") from error


def encode_run(run: Run) -> bytes:
    """The run without its request and its prepared graph."""
    return _runs().dump_json(run, by_alias=True, exclude={"request", "prepared_graph"})


class NodeMemory:
    """Cache of the nodes of the last parsed run. Runs of one workflow mostly have equal nodes: they share the
    node objects, and the JSON of the nodes, the largest part of a run, is not parsed again. Thread-safe."""

    def __init__(self) -> None:
        self._last: tuple[bytes, tuple[NodeProgress, ...]] = (_json_of_nodes(()), ())

    def take_out(self, run: bytes) -> tuple[bytes, tuple[NodeProgress, ...] | None]:
        """Returns the run without its nodes, and the nodes if they are in the cache. The search cannot match
        inside a JSON string, because every quote there has a backslash before it."""
        text, nodes = self._last
        start = run.find(text)
        return (run, None) if start < 0 else (run[:start] + run[start + len(text) :], nodes)

    def decode(self, value: object) -> tuple[NodeProgress, ...]:
        """Raises: StoreError, ValidationError."""
        nodes = _nodes().validate_python(value)
        if not all(_is_sound_node(node) for node in nodes):
            raise StoreError("not the record of a run: a percentage or a time in it is none")
        self._last = (_json_of_nodes(nodes), nodes)
        return nodes


def _json_of_nodes(nodes: tuple[NodeProgress, ...]) -> bytes:
    """The nodes as they appear in the JSON of a run, where other fields follow them."""
    return b'"nodes":' + _nodes().dump_json(nodes) + b","


def decode_run(
    request: bytes,
    run: bytes,
    workflow: Workflow | None = None,
    memory: NodeMemory | None = None,
) -> Run:
    """The run without its prepared graph. `run` is the log of the run. `workflow` is given if the request is
    stored without its workflow. Raises: StoreError if the content does not come from the encoders."""
    try:
        asked = _decode_request(request, workflow)
    except (ValidationError, TypeError) as error:
        raise StoreError(f"not the record of a run: {_first_line(error)}") from error
    return decode_state(run, asked, memory)


def decode_request(request: bytes, workflow: Workflow | None) -> RunRequest:
    """`workflow` is given if the request is stored without its workflow. Raises: StoreError."""
    try:
        return _decode_request(request, workflow)
    except (ValidationError, TypeError) as error:
        raise StoreError(f"not the request of a run: {_first_line(error)}") from error


def decode_state(run: bytes, request: RunRequest, memory: NodeMemory | None = None) -> Run:
    """Parses the log of a run and adds the request, which is stored beside the log. Raises: StoreError."""
    try:
        memory = memory or NodeMemory()
        state, nodes = _decode_state(run, memory)
        if "nodes" in state:
            nodes = memory.decode(state.pop("nodes"))
        decoded = replace(
            _runs().validate_python({**state, "request": _EMPTY}),
            request=request,
            nodes=nodes or (),
        )
    except (ValidationError, TypeError) as error:
        raise StoreError(f"not the record of a run: {_first_line(error)}") from error
    if not _is_sound(decoded):
        raise StoreError("not the record of a run: a time or a number in it is none")
    return decoded


@dataclass(frozen=True, kw_only=True)
class SubmissionRecord:
    """A second copy of the data that must not be lost after a prompt was submitted."""

    run_id: str = field(metadata=NAME_IN_RECORDS)
    prompt_id: str
    boot_marker: str | None
    submissions: int
    placement: Placement | None
    request: RunRequest
    """The request without its workflow."""
    chosen_port: int | None = None


def encode_submission(run: Run) -> bytes:
    """The submission record of a run that has a prompt id."""
    request = replace(run.request, workflow=Workflow(graph={}))
    record = SubmissionRecord(
        run_id=run.run_id,
        prompt_id=run.prompt_id or "",
        boot_marker=run.boot_marker,
        submissions=run.submissions,
        placement=run.placement,
        request=request,
        chosen_port=run.chosen_port,
    )
    rest = _submissions().dump_json(record, by_alias=True, exclude={"request"})
    return _merged(rest, b'{"request":' + encode_request(request) + b"}")


def decode_submission(content: bytes) -> SubmissionRecord:
    """Raises: StoreError."""
    try:
        fields = _states().validate_json(content)
        request = _decode_request(_states().dump_json(fields.get("request")), None)  # type: ignore[arg-type]
        return _submissions().validate_python({**fields, "request": request})
    except ValidationError as error:
        raise StoreError(f"not the record of a submission: {_first_line(error)}") from error


def _decode_state(log: bytes, memory: NodeMemory) -> tuple[dict[str, Any], tuple[NodeProgress, ...] | None]:
    """A run that has not begun has only one line, with nodes that other runs have too: they come from the
    cache. Raises: StoreError, ValidationError."""
    line, changes = newest_state(log)
    if changes:
        return with_changes(_states().validate_json(line), changes), None
    rest, nodes = memory.take_out(line)
    return _states().validate_json(rest), nodes


def decode_inputs(request: bytes) -> Mapping[str, Any]:
    """Parses only the inputs of a request. Raises: StoreError."""
    try:
        return _states().validate_python(_states().validate_json(request).get("inputs", {}))
    except ValidationError as error:
        raise StoreError(f"not the record of a run: {_first_line(error)}") from error


def decode_outputs(run: bytes) -> tuple[OutputFile, ...]:
    """Parses only the outputs from the log of a run. Raises: StoreError."""
    try:
        state, changes = newest_state(run)
        return _outputs().validate_python(
            with_changes(_states().validate_json(state), changes).get("outputs", [])
        )
    except ValidationError as error:
        raise StoreError(f"not the record of a run: {_first_line(error)}") from error


def encode_summary(summary: RunSummary) -> bytes:
    """One line, without a line break."""
    return _summaries().dump_json(summary, by_alias=True, exclude_defaults=True)


def decode_summary(line: bytes) -> RunSummary:
    """Raises: StoreError if the line does not come from the encoder."""
    try:
        summary = _summaries().validate_json(line)
    except ValidationError as error:
        raise StoreError(f"not the summary of a run: {_first_line(error)}") from error
    if not _is_sound_summary(summary):
        raise StoreError("not the summary of a run: a time or a number in it is none")
    return summary


def encode_batch(batch: Batch) -> bytes:
    return _batches().dump_json(batch)


def decode_batch(content: bytes) -> Batch:
    """Raises: StoreError."""
    try:
        batch = _batches().validate_json(content)
    except ValidationError as error:
        raise StoreError(f"not the record of a batch: {_first_line(error)}") from error
    if not _are_times((batch.created_at, batch.cancelled_at)):
        raise StoreError("not the record of a batch: a time in it is none")
    return batch


def _decode_request(request: bytes, workflow: Workflow | None) -> RunRequest:
    """Raises: ValidationError."""
    own = _workflows().validate_json(request) if workflow is None else workflow
    texts = _target_texts().validate_json(request)
    target = target_of_record(texts.ssh_connection, texts.instance_id)
    others = vars(_other_fields().validate_json(request))
    return RunRequest(**{**others, "workflow": own, "target": target})


def _merged(first: bytes, second: bytes) -> bytes:
    """Merges the JSON of two non-empty objects into one."""
    return b"".join((first[:-1], b",", memoryview(second)[1:]))


@dataclass(frozen=True, kw_only=True)
class _TargetTexts:
    """The fields of a request record that describe the target."""

    ssh_connection: str
    instance_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class _OtherFields(RunRequest):
    """The fields of a request record that have the same names as in `RunRequest`."""

    target: Target = field(default_factory=AnyInstance)
    workflow: Workflow = field(default_factory=lambda: Workflow(graph={}))
    secrets: RequestSecrets = field(default=NO_SECRETS, init=False)
    """Never read from a record."""


_target_texts = cache(lambda: TypeAdapter(_TargetTexts))
_other_fields = cache(lambda: TypeAdapter(_OtherFields))
_batches = cache(lambda: TypeAdapter(Batch))
_submissions = cache(lambda: TypeAdapter(SubmissionRecord))
_states = cache(lambda: TypeAdapter(dict[str, Any]))
_EMPTY = RunRequest(
    target=AnyInstance(),
    workflow=Workflow(graph={}),
    workflow_name="",
    output_dir="",
    comfyui_port=1,
    comfyui_input_dir="",
    comfyui_output_dir="",
)


_MOST = 1e12
"""Upper limit for seconds and for amounts of any currency. Larger values are damaged."""


def _is_sound(run: Run) -> bool:
    """Checks what the types do not: times can be compared and shown in any time zone, amounts are in
    range."""
    asked = run.request
    times = (
        run.queue_time,
        run.last_update,
        run.start_time,
        run.end_time,
        run.gpu_since,
        run.contact_lost_at,
        run.sent_at,
        asked.not_before,
        *(at for output in run.outputs for at in (output.made_after, output.made_before)),
    )
    price = None if run.placement is None else run.placement.price_per_hour
    amounts = (run.gpu_s, price, asked.stagger_s, *_amounts(run.stays), *_amounts_of_parts(run.parts))
    return _are_times(times) and _are_amounts(amounts)


def _is_sound_node(node: NodeProgress) -> bool:
    return 0 <= node.progress <= 100 and _are_times((node.start_time, node.end_time))


def _is_sound_summary(line: RunSummary) -> bool:
    times = (line.queue_time, line.last_update, line.start_time, line.end_time, line.gpu_since)
    return (
        _are_times(times)
        and _are_amounts((line.gpu_s, line.price_per_hour, line.prompt_s, line.current_node_progress))
        and _are_amounts((line.parts_gpu_s, line.parts_cost))
        and _are_amounts(_amounts(line.stays))
        and all(number >= 0 for number in line.pictures)
        and 0 <= line.completed_nodes <= line.total_nodes
    )


def _amounts(stays: Iterable[Stay]) -> Iterator[float | None]:
    for stay in stays:
        yield from (stay.gpu_s, stay.price_per_hour)


def _amounts_of_parts(parts: Iterable[PartState]) -> Iterator[float | None]:
    for part in parts:
        yield from (part.gpu_s, part.cost)


def _are_times(given: Iterable[datetime | None]) -> bool:
    return all(at is None or (at.tzinfo is not None and 1 < at.year < 9999) for at in given)


def _are_amounts(given: Iterable[float | None]) -> bool:
    return all(amount is None or 0 <= amount < _MOST for amount in given)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split("\n")[:3])
