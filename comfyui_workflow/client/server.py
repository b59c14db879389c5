"""Our own server, from Python: the native API, typed.

A route more is a method more: `self._calls.ask(method, path, …)` gives the answer when it is a yes and raises
otherwise, `self._calls.read(Kind, answer[…])` makes a document of it; `documents.py` has the kinds.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack

from comfyui_workflow.client.batches import Batches, is_batch_id
from comfyui_workflow.client.calls import Calls
from comfyui_workflow.client.documents import (
    InspectionDocument,
    OutputDocument,
    ProgressDocument,
    StartedDocument,
    SummaryDocument,
)
from comfyui_workflow.client.errors import RunCancelled, RunFailed, ServerUnreachable
from comfyui_workflow.client.instances import NamedInstances
from comfyui_workflow.client.orders import Order, check_order, hand_over
from comfyui_workflow.client.watch import Trouble, watch
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.runs.status import RunStatus, is_run_id

UPLOAD_TIMEOUT_S = 600.0
INSPECTION_TIMEOUT_S = 180.0
"""The server gives an instance half a minute to let it in, and then asks it many things."""
_BASE = "/comfyui/workflow"

Answer = TypeVar("Answer")


class WorkflowServer:
    """One server. Not to be shared between threads.

    Every method raises ServerUnreachable when no server of ours answers, RequestRefused when it says no, and
    InvalidRequest for what need not be asked. Constructing it asks nothing.
    """

    def __init__(self, url: str = "http://127.0.0.1:5000", api_token: str | None = None) -> None:
        """Raises: InvalidRequest when the URL is none."""
        self._calls = Calls(url, api_token)
        self.batches = Batches(self._calls, self.upload)
        self.instances = NamedInstances(self._calls)
        self.url = self._calls.url
        self.is_on_this_machine = self._calls.is_on_this_machine
        """Files of the server are ours."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._calls.close()

    def check(self) -> None:
        """Raises: ServerUnreachable unless one of our servers answers there."""
        if "unfinished_runs" not in self._calls.ask("GET", "/health"):
            raise self._calls.foreign()

    def execute(self, **order: Unpack[Order]) -> StartedDocument:
        """Start a run; returns at once. A file that the server cannot read itself is sent to it. Nothing is
        asked twice: when the answer is lost, ServerUnreachable says that the run may have started."""
        return self._hand_over(order, self._execute)

    def validate(self, **order: Unpack[Order]) -> InspectionDocument:
        """What the instance would say of such a run. Nothing is brought there, nothing runs."""
        return self._hand_over(order, self._validate)

    def progress(self, workflow_id: str) -> ProgressDocument:
        """The run now."""
        answer = self._calls.ask("GET", f"{_run_path(workflow_id)}/progress")
        return self._calls.read(ProgressDocument, answer.get("progress"))

    def watch(
        self,
        workflow_id: str,
        *,
        timeout_s: float | None = None,
        on_trouble: Trouble = lambda _error, _away_s: None,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> Iterator[ProgressDocument]:
        """The run whenever it has changed, the finished one last, however it ended. Goes on while the server
        is away, for ten minutes; `on_trouble` hears of that. Raises: TimedOut."""
        return watch(
            lambda: self.progress(workflow_id),
            timeout_s=timeout_s,
            on_trouble=on_trouble,
            pause=pause,
            clock=clock,
        )

    def wait(self, workflow_id: str, *, timeout_s: float | None = None) -> ProgressDocument:
        """The completed run. Raises: RunFailed, RunCancelled, TimedOut."""
        *_, finished = self.watch(workflow_id, timeout_s=timeout_s)
        match finished.status:
            case RunStatus.FAILED:
                raise RunFailed(finished.error_message or "The run failed", progress=finished)
            case RunStatus.CANCELLED:
                raise RunCancelled(finished.error_message or "The run was cancelled", progress=finished)
        return finished

    def cancel(self, workflow_id: str) -> str:
        """Ask for it; `wait` or `watch` tells when it has ended. The server's sentence."""
        return str(self._calls.ask("POST", f"{_run_path(workflow_id)}/cancel").get("message"))

    def retry(self, workflow_id: str) -> str:
        """Take up a failed run where it failed; the prompt is never run again. The server's sentence."""
        return str(self._calls.ask("POST", f"{_run_path(workflow_id)}/retry").get("message"))

    def prioritize(self, workflow_id: str, priority: int) -> str:
        """Of runs that wait for the same instance the higher one goes first: -1000 to 1000. The server's
        sentence."""
        body = {"priority": priority}
        return str(self._calls.ask("POST", f"{_run_path(workflow_id)}/priority", json=body).get("message"))

    def outputs(self, workflow_id: str) -> list[OutputDocument]:
        answer = self._calls.ask("GET", f"{_run_path(workflow_id)}/outputs")
        return self._calls.read_all(OutputDocument, answer.get("outputs"))

    def download(self, workflow_id: str, directory: Path | str) -> list[Path]:
        """Every output of the run into a directory here. Raises: RemoteFileError when the server has not got
        all of them, after those that it has; StoreError."""
        from comfyui_workflow.client.download import land_outputs  # noqa: PLC0415 - few commands fetch files

        def stream(_output: OutputDocument, number: int) -> AbstractContextManager[Iterator[bytes]]:
            return self._calls.stream(f"{_run_path(workflow_id)}/outputs/{number}")

        return land_outputs(self.outputs(workflow_id), Path(directory), stream)

    def output_url(self, workflow_id: str, number: int) -> str:
        """Where a browser finds an output, counted from 0."""
        return f"{self.url}{_run_path(workflow_id)}/outputs/{number}"

    def live_preview_url(self, workflow_id: str) -> str:
        """Where a browser finds the picture that ComfyUI shows of the run just now, if it does."""
        return f"{self.url}{_run_path(workflow_id)}/live-preview"

    def runs(
        self,
        limit: int = 50,
        before: str | None = None,
        *,
        statuses: Iterable[RunStatus | str] = (),
        name: str | None = None,
        instance: str | None = None,
        batch: str | None = None,
    ) -> list[SummaryDocument]:
        """Newest first; `before` an id, for the next page. At most 500. Of these statuses, with this in their
        name, of this instance (its id or name), of this batch (its id)."""
        asked = {
            "limit": str(limit),
            "before": before,
            "status": ",".join(statuses),
            "name": name,
            "instance": instance,
            "batch": batch,
        }
        params = {field: value for field, value in asked.items() if value}
        answer = self._calls.ask("GET", _BASE, params=params)
        return self._calls.read_all(SummaryDocument, answer.get("workflows", []))

    def latest(self) -> ProgressDocument | None:
        """The run that was started last; None when there is none."""
        state = self._calls.ask("GET", f"{_BASE}/state").get("state")
        return None if state is None else self._calls.read(ProgressDocument, state)

    def is_active(self, workflow_id: str) -> bool:
        """Whether the run is still going on; one that does not exist is not."""
        return bool(self._calls.ask("GET", f"{_run_path(workflow_id)}/active").get("active"))

    def upload(self, path: Path | str) -> str:
        """Where the server put the file, to be named in an order. Raises: InvalidRequest when it cannot be
        read."""
        local = Path(path)
        try:
            content = local.read_bytes()
        except OSError as error:
            raise InvalidRequest(f"{local} cannot be read: {error.strerror}") from error
        file = (local.name, content)
        answer = self._calls.ask("POST", f"{_BASE}/files", timeout_s=UPLOAD_TIMEOUT_S, file=file)
        return str(answer.get("path"))

    def _hand_over(self, order: Order, ask: Callable[[dict[str, Any]], Answer]) -> Answer:
        check_order(order)
        return hand_over(order, ask, self.upload, reads_our_files=self.is_on_this_machine)

    def _execute(self, body: dict[str, Any]) -> StartedDocument:
        try:
            answer = self._calls.ask("POST", f"{_BASE}/execute", json=body)
        except ServerUnreachable as error:
            unsure = "Whether it has started the run is not known; comfyui-workflow list tells"
            raise ServerUnreachable(f"{error}. {unsure}") from error
        return self._calls.read(StartedDocument, answer)

    def _validate(self, body: dict[str, Any]) -> InspectionDocument:
        answer = self._calls.ask("POST", f"{_BASE}/validate", timeout_s=INSPECTION_TIMEOUT_S, json=body)
        return self._calls.read(InspectionDocument, answer)


def _run_path(workflow_id: str) -> str:
    if is_batch_id(workflow_id):
        raise InvalidRequest(f"{workflow_id} is a batch, not a run (comfyui-workflow batches --help)")
    if not is_run_id(workflow_id):
        raise InvalidRequest(
            f"This is not the id of a run: {workflow_id!r} (comfyui-workflow list tells them)"
        )
    return f"{_BASE}/{workflow_id}"
