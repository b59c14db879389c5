"""Python client of the batch routes of the server: `server.batches`."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Unpack

from comfyui_workflow.client.batch_documents import (
    BatchOutputDocument,
    BatchProgressDocument,
    BatchRunDocument,
    BatchStartedDocument,
    BatchSummaryDocument,
)
from comfyui_workflow.client.calls import Calls
from comfyui_workflow.client.orders import BatchOrder, FileReference, check_order, send_order
from comfyui_workflow.client.watch import Trouble, watch
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.runs.status import is_batch_id

ORDER_TIMEOUT_S = 300.0
"""The server checks and stores up to ten thousand runs before it responds."""
LONG_ANSWER_TIMEOUT_S = 120.0
_BASE = "/comfyui/workflow/batch"


class Batches:
    """Client of the batch routes. The methods raise the errors of `WorkflowServer`."""

    def __init__(self, calls: Calls, upload: FileReference) -> None:
        self._calls = calls
        self._upload = upload

    def order(
        self, *, idempotency_key: str | None = None, **order: Unpack[BatchOrder]
    ) -> BatchStartedDocument:
        """Starts many runs, all or none of them, and returns at once. If the response is lost, the request is
        sent again, as for `WorkflowServer.execute`: the batch starts once."""
        check_order(order, BatchOrder)
        is_local = self._calls.is_on_this_machine
        return send_order(
            order,
            lambda body: self.send(body, idempotency_key),
            self._upload,
            server_reads_our_files=is_local,
        )

    def send(self, body: dict[str, Any], idempotency_key: str | None = None) -> BatchStartedDocument:
        """Sends a body as described in docs/api/batch.md, unchanged: its paths are paths on the server's
        machine."""
        unsure = "It is not known whether the batch has started; check with comfyui-workflow batches list"
        answer = self._calls.order(_BASE, body, key=idempotency_key, unsure=unsure, timeout_s=ORDER_TIMEOUT_S)
        return self._calls.read(BatchStartedDocument, answer)

    def all(self, limit: int = 20, before: str | None = None) -> list[BatchProgressDocument]:
        """Returns batches, newest first, at most 100. `before`: a batch id, for the next page."""
        params = {"limit": str(limit), **({"before": before} if before else {})}
        answer = self._calls.ask("GET", _BASE, params=params)
        return self._calls.read_all(BatchProgressDocument, answer.get("batches"))

    def progress(self, batch_id: str) -> BatchProgressDocument:
        """Returns the current progress of the batch."""
        answer = self._calls.ask("GET", f"{_path(batch_id)}/progress")
        return self._calls.read(BatchProgressDocument, answer.get("progress"))

    def watch(
        self,
        batch_id: str,
        *,
        timeout_s: float | None = None,
        on_trouble: Trouble = lambda _error, _away_s: None,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> Iterator[BatchProgressDocument]:
        """Yields the progress whenever it has changed, the finished batch last; as `WorkflowServer.watch`.
        Raises: TimedOut."""
        return watch(
            lambda: self.progress(batch_id),
            timeout_s=timeout_s,
            on_trouble=on_trouble,
            what="The batch",
            pause=pause,
            clock=clock,
        )

    def wait(self, batch_id: str, *, timeout_s: float | None = None) -> BatchProgressDocument:
        """Waits for the batch and returns it. Failed runs raise no error: see `status`, `counts` and
        `failures`. The outputs of the other runs are available. Raises: TimedOut."""
        *_, finished = self.watch(batch_id, timeout_s=timeout_s)
        return finished

    def cancel(self, batch_id: str) -> int:
        """Requests the cancellation; returns the number of unfinished runs."""
        return int(self._calls.ask("POST", f"{_path(batch_id)}/cancel").get("cancelled") or 0)

    def retry(self, batch_id: str) -> int:
        """Retries failed runs from the step that failed; no prompt is executed again. Returns their
        number."""
        return int(self._calls.ask("POST", f"{_path(batch_id)}/retry").get("retried") or 0)

    def outputs(self, batch_id: str) -> list[BatchOutputDocument]:
        """Returns the outputs of all runs, in the order of the runs."""
        answer = self._calls.ask("GET", f"{_path(batch_id)}/outputs", timeout_s=LONG_ANSWER_TIMEOUT_S)
        return self._calls.read_all(BatchOutputDocument, answer.get("outputs"))

    def summary(self, batch_id: str) -> BatchSummaryDocument:
        """Returns the progress of the batch, and each run with the inputs that were set."""
        answer = self._calls.ask("GET", f"{_path(batch_id)}/summary", timeout_s=LONG_ANSWER_TIMEOUT_S)
        batch = self._calls.read(BatchProgressDocument, answer.get("batch"))
        runs = self._calls.read_all(BatchRunDocument, answer.get("workflows"))
        return BatchSummaryDocument(batch=batch, workflows=tuple(runs), raw=answer)

    def download(self, batch_id: str, directory: Path | str) -> list[Path]:
        """Downloads every output into a local directory; files with equal names get numbers.
        Raises: RemoteFileError if the server does not have all outputs (the others are downloaded first);
        StoreError."""
        from comfyui_workflow.client.download import save_outputs  # noqa: PLC0415 - few commands fetch files

        return save_outputs(self.outputs(batch_id), Path(directory), self._stream)

    def _stream(self, output: BatchOutputDocument, _at: int) -> AbstractContextManager[Iterator[bytes]]:
        return self._calls.stream(f"/comfyui/workflow/{output.workflow_id}/outputs/{output.number}")


def _path(batch_id: str) -> str:
    if not is_batch_id(batch_id):
        raise InvalidRequest(
            f"This is not the id of a batch: {batch_id!r} (comfyui-workflow batches list shows them)"
        )
    return f"{_BASE}/{batch_id}"
