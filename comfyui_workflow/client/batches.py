"""The batches of our own server, from Python: `server.batches`."""

import re
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
from comfyui_workflow.client.errors import ServerUnreachable
from comfyui_workflow.client.orders import BatchOrder, Place, check_order, hand_over
from comfyui_workflow.client.watch import Trouble, watch
from comfyui_workflow.errors import InvalidRequest

ORDER_TIMEOUT_S = 300.0
"""Ten thousand runs are checked and kept before the answer."""
LONG_ANSWER_TIMEOUT_S = 120.0
_BASE = "/comfyui/workflow/batch"


class Batches:
    """Every method raises what those of the server raise."""

    def __init__(self, calls: Calls, upload: Place) -> None:
        self._calls = calls
        self._upload = upload

    def order(self, **order: Unpack[BatchOrder]) -> BatchStartedDocument:
        """Many runs at once, all or none of them; returns at once. Nothing is asked twice: when the answer
        is lost, ServerUnreachable says that the batch may have started."""
        check_order(order, BatchOrder)
        reads_our_files = self._calls.is_on_this_machine
        return hand_over(order, self.send, self._upload, reads_our_files=reads_our_files)

    def send(self, body: dict[str, Any]) -> BatchStartedDocument:
        """A body as docs/api/batch.md has it, as it is: its paths are those of the server."""
        try:
            answer = self._calls.ask("POST", _BASE, timeout_s=ORDER_TIMEOUT_S, json=body)
        except ServerUnreachable as error:
            unsure = "Whether it has started the batch is not known; comfyui-workflow batches list tells"
            raise ServerUnreachable(f"{error}. {unsure}") from error
        return self._calls.read(BatchStartedDocument, answer)

    def all(self, limit: int = 20, before: str | None = None) -> list[BatchProgressDocument]:
        """Newest first; `before` an id, for the next page. At most 100."""
        params = {"limit": str(limit), **({"before": before} if before else {})}
        answer = self._calls.ask("GET", _BASE, params=params)
        return self._calls.read_all(BatchProgressDocument, answer.get("batches"))

    def progress(self, batch_id: str) -> BatchProgressDocument:
        """The batch now."""
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
        """As `watch` of a run: the batch whenever it has changed, the finished one last. Raises: TimedOut."""
        return watch(
            lambda: self.progress(batch_id),
            timeout_s=timeout_s,
            on_trouble=on_trouble,
            what="The batch",
            pause=pause,
            clock=clock,
        )

    def wait(self, batch_id: str, *, timeout_s: float | None = None) -> BatchProgressDocument:
        """The finished batch, however its runs ended: `status`, `counts` and `failures` tell, and what the
        others made is there. Raises: TimedOut."""
        *_, finished = self.watch(batch_id, timeout_s=timeout_s)
        return finished

    def cancel(self, batch_id: str) -> int:
        """Ask for it; how many runs were not finished."""
        return int(self._calls.ask("POST", f"{_path(batch_id)}/cancel").get("cancelled") or 0)

    def retry(self, batch_id: str) -> int:
        """Take up failed runs where they failed; no prompt is run again. How many those are."""
        return int(self._calls.ask("POST", f"{_path(batch_id)}/retry").get("retried") or 0)

    def outputs(self, batch_id: str) -> list[BatchOutputDocument]:
        """Of all its runs, in their order."""
        answer = self._calls.ask("GET", f"{_path(batch_id)}/outputs", timeout_s=LONG_ANSWER_TIMEOUT_S)
        return self._calls.read_all(BatchOutputDocument, answer.get("outputs"))

    def summary(self, batch_id: str) -> BatchSummaryDocument:
        """Its progress, and a line for each run with the inputs that were set."""
        answer = self._calls.ask("GET", f"{_path(batch_id)}/summary", timeout_s=LONG_ANSWER_TIMEOUT_S)
        batch = self._calls.read(BatchProgressDocument, answer.get("batch"))
        runs = self._calls.read_all(BatchRunDocument, answer.get("workflows"))
        return BatchSummaryDocument(batch=batch, workflows=tuple(runs), raw=answer)

    def download(self, batch_id: str, directory: Path | str) -> list[Path]:
        """Every output of its runs into a directory here; files of the same name get numbers. Raises:
        RemoteFileError when the server has not got all of them, after those that it has; StoreError."""
        from comfyui_workflow.client.download import land_outputs  # noqa: PLC0415 - few commands fetch files

        return land_outputs(self.outputs(batch_id), Path(directory), self._stream)

    def _stream(self, output: BatchOutputDocument, _at: int) -> AbstractContextManager[Iterator[bytes]]:
        return self._calls.stream(f"/comfyui/workflow/{output.workflow_id}/outputs/{output.number}")


def is_batch_id(text: str) -> bool:
    return re.fullmatch(r"batch_[0-9]{1,12}_[0-9a-f]{1,32}", text) is not None


def _path(batch_id: str) -> str:
    if not is_batch_id(batch_id):
        raise InvalidRequest(
            f"This is not the id of a batch: {batch_id!r} (comfyui-workflow batches list tells them)"
        )
    return f"{_BASE}/{batch_id}"
