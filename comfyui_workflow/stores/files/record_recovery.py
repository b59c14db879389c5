"""Rebuilds a run whose record is damaged: reads each file of the record separately, puts the damaged files
into quarantine, and writes a new record from the others."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from comfyui_workflow.errors import InvalidGraph, StoreError
from comfyui_workflow.files.atomic_write import read_regular, write_atomically
from comfyui_workflow.runs.codec import (
    decode_graph,
    decode_request,
    decode_state,
    encode_request,
    encode_run,
)
from comfyui_workflow.runs.model import Run, RunRequest, is_run_id
from comfyui_workflow.runs.recovery import RecordParts, rebuild_run, request_of
from comfyui_workflow.runs.summary import RunSummary
from comfyui_workflow.stores.damage import DamageReport
from comfyui_workflow.stores.files.quarantine import link_to_quarantine
from comfyui_workflow.stores.files.record_format import RecordFormat
from comfyui_workflow.stores.files.run_directory import (
    CUT,
    NO_END,
    OLD_STATE,
    SUBMISSION,
    RecordReader,
    is_missing,
    read_optional,
    read_submission,
    version_of,
    whole_state,
)
from comfyui_workflow.stores.files.run_log import GRAPH, LOG
from comfyui_workflow.stores.files.workflow_file import FILE_NAME as WORKFLOW
from comfyui_workflow.workflows.graph import Graph, check_graph
from comfyui_workflow.workflows.model import Workflow

log = logging.getLogger(__name__)

T = TypeVar("T")


class RecordRecovery:
    def __init__(self, reader: RecordReader, aside: Path, damage: DamageReport) -> None:
        self._reader = reader
        self._seal = reader.seal
        self._quarantine = aside
        self._damage = damage

    def rebuild(self, path: Path, *, is_finished: bool, summary: RunSummary | None = None) -> Run | None:
        """Rebuilds a run and saves it under its id. Returns None if the directory has no files of a run.
        Raises: NewerRecord."""
        if not _holds_a_run(path):
            return None
        parts = self._read(path, is_finished=is_finished, summary=summary)
        run = rebuild_run(parts)
        try:
            self._keep(path, run, parts)
        except OSError as error:  # the next start tries again
            log.error("The record of %s cannot be written: %s", run.run_id, error.strerror)
        for name, reason in parts.troubles.items():
            self._damage.add(path / name, reason, _outcome(run))
        return run

    def _read(self, path: Path, *, is_finished: bool, summary: RunSummary | None) -> RecordParts:
        troubles: dict[str, str] = {}

        def part(name: str, read: Callable[[], T]) -> T | None:
            try:
                return read()
            except (StoreError, InvalidGraph) as error:
                troubles[name] = str(error)
            except FileNotFoundError:
                troubles[name] = "it is missing"
            except OSError as error:
                troubles[name] = error.strerror or str(error)
            return None

        workflow = part(WORKFLOW, lambda: self._reader.workflows.read(path))
        request = part("request.json", lambda: self._request(path, workflow, is_lost=WORKFLOW in troubles))
        if request is not None and request.workflow.is_lost:
            troubles.setdefault(WORKFLOW, "it is missing")
        graph = part(GRAPH, lambda: self._graph(path))
        submission = part(SUBMISSION, lambda: read_submission(path, self._seal))
        parts = RecordParts(
            run_id=path.name,
            request=request,
            graph=graph,
            state=None,
            submission=submission,
            summary=summary,
            troubles=troubles,
            is_finished=is_finished,
            tells_submissions=_is_sealed(path / "request.json"),
        )
        asked = request_of(parts)
        state = part(LOG, lambda: self._state(path, asked, graph, troubles))
        if state is not None and submission is not None and submission.submissions > state.submissions:
            troubles.setdefault(LOG, CUT)
        if is_finished and state is not None and not state.is_finished:
            troubles.setdefault(LOG, NO_END)
        return replace(parts, state=state)

    def _request(self, path: Path, workflow: Workflow | None, *, is_lost: bool) -> RunRequest:
        """Reads the request, with an empty workflow if the workflow is lost. Raises: StoreError, OSError."""
        content = self._seal.read(path / "request.json")
        if workflow is not None or is_lost:
            return _checked(decode_request(content, workflow or Workflow(graph={})))
        try:
            return _checked(decode_request(content, None))
        except (StoreError, InvalidGraph):
            return decode_request(content, Workflow(graph={}))

    def _graph(self, path: Path) -> Graph | None:
        """Raises: StoreError, InvalidGraph, OSError."""
        content = read_optional(path / GRAPH)
        if content is None:
            return None
        return check_graph(decode_graph(self._seal.unseal(content, path / GRAPH)))

    def _state(self, path: Path, request: RunRequest, graph: Graph | None, troubles: dict[str, str]) -> Run:
        """Reads the state from the undamaged part of the log. Damage is added to `troubles`.
        Raises: StoreError, OSError."""
        read = whole_state(path, self._seal)
        if read.trouble is not None:
            troubles[LOG] = read.trouble
        run = decode_state(read.content, request)
        if run.run_id != path.name:
            raise StoreError(f"it is the record of another run, {run.run_id!r}")
        is_graph_used = run.submissions > 0 or run.is_finished or run.are_parts_done
        return replace(run, prepared_graph=graph if is_graph_used else None)

    def _keep(self, path: Path, run: Run, parts: RecordParts) -> None:
        """Puts the damaged files into quarantine and writes a complete record. If this is interrupted at any
        time, the undamaged files still exist. Raises: OSError."""
        for name in parts.troubles:
            if not is_missing(path / name):
                link_to_quarantine(path / name, self._quarantine, parts.troubles[name], f"{path.name}-{name}")
        if parts.troubles.keys() & {"request.json", WORKFLOW}:
            write_atomically(
                path / "request.json", self._seal.seal(encode_request(run.request), version_of(run.request))
            )
        write_atomically(path / LOG, self._seal.seal(encode_run(run)) + b"\n")
        for name in parts.troubles.keys() & {WORKFLOW, GRAPH, SUBMISSION}:
            (path / name).unlink(missing_ok=True)


def _checked(request: RunRequest) -> RunRequest:
    """Raises: InvalidGraph."""
    if request.workflow.graph:
        check_graph(request.workflow.graph)
    return request


def _holds_a_run(path: Path) -> bool:
    is_ours = is_run_id(path.name) and path.is_dir() and not path.is_symlink()
    return is_ours and not all(is_missing(path / name) for name in ("request.json", LOG, OLD_STATE))


def _is_sealed(path: Path) -> bool:
    """True if a file begins with a seal, even if the rest is damaged."""
    try:
        return RecordFormat.is_sealed(read_regular(path))
    except OSError:
        return False


def _outcome(run: Run) -> str:
    if run.error_message is not None:
        return f"The run {run.run_id} is listed as {run.status.value}: {run.error_message}"
    return f"The run {run.run_id} was rebuilt from the other parts of its record"
