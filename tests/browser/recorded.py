"""Writes finished runs to the store before the server starts."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from comfyui_workflow.runs.events import PromptSucceeded, RunCompleted, RunFailed
from comfyui_workflow.runs.model import FileType, OutputFile, Run, new_run_id
from comfyui_workflow.runs.state_machine import apply
from comfyui_workflow.stores.files.runs import FileRunStore
from tests.runs.test_state_machine import AT, new_run


def record(data_dir: Path, runs: Sequence[Run]) -> None:
    store = FileRunStore(data_dir, None)
    store.open()
    queued = new_run().status
    store.add_all([replace(run, status=queued) for run in runs])
    for run in runs:
        store.update(run.run_id, lambda _, run=run: run)  # type: ignore[misc]
    store.close()


def completed(name: str, *files: tuple[Path, FileType], number: int = 0) -> Run:
    outputs = tuple(
        OutputFile(filename=path.name, file_type=kind, local_path=str(path), size_bytes=path.stat().st_size)
        for path, kind in files
    )
    run = apply(_named(name, number), PromptSucceeded(outputs=outputs), AT)
    return apply(run, RunCompleted(), AT)


def failed(name: str, message: str, number: int = 0) -> Run:
    return apply(_named(name, number), RunFailed(code="connection_failed", message=message), AT)


def _named(name: str, number: int) -> Run:
    """Creates a finished run; a higher number is newer."""
    run = new_run()
    at = AT + timedelta(seconds=number)
    request = replace(run.request, workflow_name=name)
    return replace(run, request=request, run_id=new_run_id(at), queue_time=at, last_update=at)
