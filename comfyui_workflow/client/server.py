"""Typed Python client of the native API of the server.

To add a route, add a method: `self._calls.ask(method, path, …)` returns a successful response and raises
otherwise, `self._calls.read(Kind, answer[…])` converts it to a document of `documents.py`.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any, Self, TypeVar, Unpack
from urllib.parse import quote

from comfyui_workflow.client.batches import Batches
from comfyui_workflow.client.calls import Calls
from comfyui_workflow.client.documents import (
    CustomWorkflowDocument,
    InspectionDocument,
    OutputDocument,
    ProgressDocument,
    StartedDocument,
    SummaryDocument,
)
from comfyui_workflow.client.errors import RunCancelled, RunFailed
from comfyui_workflow.client.instances import NamedInstances
from comfyui_workflow.client.orders import CustomOrder, Order, check_order, send_order, uploaded_name
from comfyui_workflow.client.watch import Trouble, watch
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.files.input_directories import files_in
from comfyui_workflow.runs.status import RunStatus, is_batch_id, is_run_id

UPLOAD_TIMEOUT_S = 600.0
INSPECTION_TIMEOUT_S = 180.0
"""The server waits half a minute for the connection to the instance, and then sends it many requests."""
_BASE = "/comfyui/workflow"
_CUSTOM = "/workflow"

Answer = TypeVar("Answer")


class WorkflowServer:
    """Client of one server. Not thread-safe.

    Every method raises ServerUnreachable if no server of this program answers, RequestRefused if the server
    refuses the request, and InvalidRequest for arguments that are invalid in any case. The constructor sends
    no request.
    """

    def __init__(self, url: str = "http://127.0.0.1:5000", api_token: str | None = None) -> None:
        """Raises: InvalidRequest for an invalid URL."""
        self._calls = Calls(url, api_token)
        self.batches = Batches(self._calls, self.upload)
        self.instances = NamedInstances(self._calls)
        self.url = self._calls.url
        self.is_on_this_machine = self._calls.is_on_this_machine
        """True if the server runs on this machine: its file paths are valid here."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._calls.close()

    def check(self) -> None:
        """Checks that a server of this program answers. Raises: ServerUnreachable."""
        if "unfinished_runs" not in self._calls.ask("GET", "/health"):
            raise self._calls.foreign()

    def execute(self, *, idempotency_key: str | None = None, **order: Unpack[Order]) -> StartedDocument:
        """Starts a run and returns at once. A file that the server cannot read is uploaded. If the response
        is lost, the request is sent again for half a minute: the run starts once. Then ServerUnreachable says
        that it may have started.

        Equal orders with the same `idempotency_key` are carried out once, also after a restart of this
        program or of the server. Default: a new key for each call."""
        return self._send_order(order, lambda body: self._execute(body, idempotency_key))

    def custom_workflows(self) -> list[CustomWorkflowDocument]:
        """Returns the custom workflows of the server (docs/api/custom-workflows.md)."""
        answer = self._calls.ask("GET", _CUSTOM)
        return self._calls.read_all(CustomWorkflowDocument, answer.get("workflows"))

    def custom_workflow(self, name: str) -> CustomWorkflowDocument:
        """Returns one of them, with the JSON Schema of its values."""
        answer = self._calls.ask("GET", f"{_CUSTOM}/{quote(name)}")
        return self._calls.read(CustomWorkflowDocument, answer.get("workflow"))

    def run_custom(
        self, name: str, *, idempotency_key: str | None = None, **order: Unpack[CustomOrder]
    ) -> StartedDocument:
        """Starts a run of a custom workflow, as `execute` does."""
        check_order(order, CustomOrder)
        return send_order(
            order,
            lambda body: self._execute(body, idempotency_key, f"{_CUSTOM}/{quote(name)}"),
            self.upload,
            server_reads_our_files=self.is_on_this_machine,
        )

    def validate(self, **order: Unpack[Order]) -> InspectionDocument:
        """Validates a run against the instance. Nothing is uploaded to the instance and nothing runs
        there."""
        return self._send_order(order, self._validate)

    def progress(self, workflow_id: str) -> ProgressDocument:
        """Returns the current state of the run."""
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
        """Yields the run whenever it has changed, and last the finished run with any status. Continues for
        ten minutes while the server is away; `on_trouble` is then called. Raises: TimedOut."""
        return watch(
            lambda: self.progress(workflow_id),
            timeout_s=timeout_s,
            on_trouble=on_trouble,
            pause=pause,
            clock=clock,
        )

    def wait(self, workflow_id: str, *, timeout_s: float | None = None) -> ProgressDocument:
        """Waits for the run and returns it when it has completed. Raises: RunFailed, RunCancelled,
        TimedOut."""
        *_, finished = self.watch(workflow_id, timeout_s=timeout_s)
        match finished.status:
            case RunStatus.FAILED:
                raise RunFailed(finished.error_message or "The run failed", progress=finished)
            case RunStatus.CANCELLED:
                raise RunCancelled(finished.error_message or "The run was cancelled", progress=finished)
        return finished

    def cancel(self, workflow_id: str) -> str:
        """Requests the cancellation and returns the message of the server; `wait` or `watch` shows when the
        run has ended."""
        return str(self._calls.ask("POST", f"{_run_path(workflow_id)}/cancel").get("message"))

    def retry(self, workflow_id: str) -> str:
        """Retries a failed run from the step that failed; the prompt is never executed again. Returns the
        message of the server."""
        return str(self._calls.ask("POST", f"{_run_path(workflow_id)}/retry").get("message"))

    def prioritize(self, workflow_id: str, priority: int) -> str:
        """Sets the priority, -1000 to 1000: runs with a higher priority start first on the same instance.
        Returns the message of the server."""
        body = {"priority": priority}
        return str(self._calls.ask("POST", f"{_run_path(workflow_id)}/priority", json=body).get("message"))

    def outputs(self, workflow_id: str) -> list[OutputDocument]:
        answer = self._calls.ask("GET", f"{_run_path(workflow_id)}/outputs")
        return self._calls.read_all(OutputDocument, answer.get("outputs"))

    def download(self, workflow_id: str, directory: Path | str) -> list[Path]:
        """Downloads every output of the run into a local directory.
        Raises: RemoteFileError if the server does not have all outputs (the others are downloaded first);
        StoreError."""
        from comfyui_workflow.client.download import save_outputs  # noqa: PLC0415 - few commands fetch files

        def stream(_output: OutputDocument, number: int) -> AbstractContextManager[Iterator[bytes]]:
            return self._calls.stream(f"{_run_path(workflow_id)}/outputs/{number}")

        return save_outputs(self.outputs(workflow_id), Path(directory), stream)

    def output_url(self, workflow_id: str, number: int) -> str:
        """Returns the URL of an output; outputs are numbered from 0."""
        return f"{self.url}{_run_path(workflow_id)}/outputs/{number}"

    def live_preview_url(self, workflow_id: str) -> str:
        """Returns the URL of the current preview picture of the run; it exists while ComfyUI sends
        previews."""
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
        """Returns runs, newest first, at most 500. `before`: a run id, for the next page. The other arguments
        are filters: status, part of the workflow name, instance (id or name), batch (id)."""
        filters = {
            "limit": str(limit),
            "before": before,
            "status": ",".join(statuses),
            "name": name,
            "instance": instance,
            "batch": batch,
        }
        params = {field: value for field, value in filters.items() if value}
        answer = self._calls.ask("GET", _BASE, params=params)
        return self._calls.read_all(SummaryDocument, answer.get("workflows", []))

    def latest(self) -> ProgressDocument | None:
        """Returns the run that was started last; None if there is none."""
        state = self._calls.ask("GET", f"{_BASE}/state").get("state")
        return None if state is None else self._calls.read(ProgressDocument, state)

    def is_active(self, workflow_id: str) -> bool:
        """True if the run is not finished; False also for an unknown run."""
        return bool(self._calls.ask("GET", f"{_run_path(workflow_id)}/active").get("active"))

    def upload(self, path: Path | str) -> str:
        """Uploads a file, or the files of a directory. Returns its path on the server, for use in an order.
        Raises: InvalidRequest if a file cannot be read."""
        local = Path(path).expanduser()
        if not local.is_dir():
            return self._upload(local, uploaded_name(Path(path)))
        group, name = secrets.token_hex(8), local.resolve().name
        try:
            files = files_in(local)
        except OSError as error:
            raise InvalidRequest(f"{local} cannot be read: {error.strerror}") from error
        stored = ""
        for relative in (file.relative_to(local) for file in files):
            path = self._upload(local / relative, f"{name}/{relative.as_posix()}", group)
            stored = str(PurePosixPath(path).parents[len(relative.parts) - 1])
        return stored

    def _upload(self, local: Path, name: str, group: str | None = None) -> str:
        try:
            content = local.read_bytes()
        except OSError as error:
            raise InvalidRequest(f"{local} cannot be read: {error.strerror}") from error
        params = {"group": group} if group else None
        answer = self._calls.ask(
            "POST", f"{_BASE}/files", timeout_s=UPLOAD_TIMEOUT_S, params=params, file=(name, content)
        )
        return str(answer.get("path"))

    def _send_order(self, order: Order, ask: Callable[[dict[str, Any]], Answer]) -> Answer:
        check_order(order)
        return send_order(order, ask, self.upload, server_reads_our_files=self.is_on_this_machine)

    def _execute(
        self, body: dict[str, Any], key: str | None, path: str = f"{_BASE}/execute"
    ) -> StartedDocument:
        unsure = "It is not known whether the run has started; check with comfyui-workflow list"
        answer = self._calls.order(path, body, key=key, unsure=unsure)
        return self._calls.read(StartedDocument, answer)

    def _validate(self, body: dict[str, Any]) -> InspectionDocument:
        answer = self._calls.ask("POST", f"{_BASE}/validate", timeout_s=INSPECTION_TIMEOUT_S, json=body)
        return self._calls.read(InspectionDocument, answer)


def _run_path(workflow_id: str) -> str:
    if is_batch_id(workflow_id):
        raise InvalidRequest(f"{workflow_id} is a batch, not a run (comfyui-workflow batches --help)")
    if not is_run_id(workflow_id):
        raise InvalidRequest(
            f"This is not the id of a run: {workflow_id!r} (comfyui-workflow list shows them)"
        )
    return f"{_BASE}/{workflow_id}"
