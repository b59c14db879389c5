"""A batch: many runs that are ordered together and have a common progress."""

import itertools
import math
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.runs.model import RunRequest, RunStatus, id_time
from comfyui_workflow.runs.notification import WebhookOrder
from comfyui_workflow.runs.retryability import retry_refusal
from comfyui_workflow.runs.summary import MOST_PICTURES, RunSummary

MOST_NOTICES = 20
Row = dict[str, Any]
"""Values by `<node id or title>.<input>`, for one run."""


class OnError(StrEnum):
    """The effect of a failed run on the other runs of its batch."""

    CONTINUE = "continue"
    STOP = "stop"
    """Waiting runs are cancelled. Prompts that are already on an instance are paid for, so they continue."""


@dataclass(frozen=True, kw_only=True)
class BatchOrder:
    """The batch as the user ordered it."""

    requests: tuple[RunRequest, ...]
    name: str
    stagger_s: float = 0.0
    """Minimum seconds between the starts of two runs."""
    on_error: OnError = OnError.CONTINUE
    comfy_org_api_keys: tuple[str | None, ...] = field(default=(), repr=False)
    """The API key of each run for nodes that call a service of Comfy.org; empty for none."""
    webhook: WebhookOrder | None = None
    """Notifications about the end of the batch. Those about its runs are in the requests."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The record of a batch. Runs refer to their batch by its id. The ids of its runs sort in the order of
    the batch."""

    batch_id: str
    name: str
    created_at: datetime
    total: int
    stagger_s: float = 0.0
    on_error: OnError = OnError.CONTINUE
    cancelled_at: datetime | None = None
    """Time of the request that cancelled all runs that were unfinished then."""
    webhook: WebhookOrder | None = None


@dataclass(frozen=True, kw_only=True)
class BatchNotice:
    """A notice, with the runs of the batch that have it."""

    message: str
    run_ids: tuple[str, ...]
    """The first `MOST_NOTICES`."""
    count: int


@dataclass(frozen=True, kw_only=True)
class BatchProgress:
    batch: Batch
    counts: Mapping[RunStatus, int]
    percent: float
    """Mean progress of the runs of the batch."""
    gpu_s: float
    cost: float | None
    """None if no run has a price."""
    unpriced: int
    """Number of runs that used the GPU at an unknown price. `cost` does not include them."""
    start_time: datetime | None
    end_time: datetime | None
    failures: tuple[RunSummary, ...]
    notices: tuple[BatchNotice, ...]
    """At most `MOST_NOTICES`."""
    pictures: tuple[tuple[str, int], ...]
    """Pairs of run id and output number: the first picture of each run, newest run first; then the other
    pictures."""

    @property
    def can_retry(self) -> bool:
        """True if at least one failed run of the batch accepts a retry."""
        return any(retry_refusal(run) is None for run in self.failures)

    @property
    def status(self) -> RunStatus:
        """Queued or executing while a run is unfinished. Afterwards the worst status of all runs."""
        unfinished = self.counts[RunStatus.QUEUED] + self.counts[RunStatus.EXECUTING]
        if unfinished:
            return (
                RunStatus.QUEUED if self.counts[RunStatus.QUEUED] == self.batch.total else RunStatus.EXECUTING
            )
        worst_first = (RunStatus.FAILED, RunStatus.CANCELLED)
        return next((status for status in worst_first if self.counts[status]), RunStatus.COMPLETED)


def progress_of(batch: Batch, runs: Sequence[RunSummary], at: datetime) -> BatchProgress:
    counted = Counter(run.status for run in runs)
    gpu_s, every_cost = [run.gpu_seconds(at) for run in runs], [run.cost(at) for run in runs]
    costs = [cost for cost in every_cost if cost is not None]
    ends = [run.end_time for run in runs]
    return BatchProgress(
        batch=batch,
        counts={status: counted[status] for status in RunStatus},
        percent=round(sum(run.progress_percent for run in runs) / max(1, len(runs)), 1),
        gpu_s=sum(gpu_s),
        cost=sum(costs) if costs else None,
        unpriced=sum(cost is None and s > 0 for cost, s in zip(every_cost, gpu_s, strict=True)),
        start_time=min((run.start_time for run in runs if run.start_time), default=None),
        end_time=max((end for end in ends if end), default=None) if all(ends) else None,
        failures=tuple(run for run in runs if run.status is RunStatus.FAILED),
        notices=tuple(itertools.islice(_notices(runs), MOST_NOTICES)),
        pictures=tuple(itertools.islice(_pictures(runs), MOST_PICTURES)),
    )


def _notices(runs: Sequence[RunSummary]) -> Iterator[BatchNotice]:
    runs_of: dict[str, list[str]] = {}
    for run in runs:
        for message in run.notices:
            runs_of.setdefault(message, []).append(run.run_id)
    for message, run_ids in runs_of.items():
        yield BatchNotice(message=message, run_ids=tuple(run_ids[:MOST_NOTICES]), count=len(run_ids))


def _pictures(runs: Sequence[RunSummary]) -> Iterator[tuple[str, int]]:
    newest_first = [run for run in reversed(runs) if run.pictures]
    yield from ((run.run_id, run.pictures[0]) for run in newest_first)
    yield from ((run.run_id, number) for run in newest_first for number in run.pictures[1:])


def last_start(runs: Iterable[RunSummary]) -> datetime | None:
    """The latest start of the runs whose prompt was submitted. A run that has not begun counts with its last
    update."""
    submitted = (run for run in runs if run.prompt_id is not None)
    return max((run.start_time or run.last_update for run in submitted), default=None)


def expand_rows(matrix: object, rows: object, most: int) -> list[Row]:
    """Returns `rows` unchanged, or one row for each combination of `matrix` (`{input: [value, …]}`). The last
    input of the matrix changes fastest. Raises: InvalidRequest."""
    if (matrix is None) == (rows is None):
        raise InvalidRequest("Give runs, or matrix, or rows: one of them")
    if rows is not None:
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise InvalidRequest('rows must be a list of objects: {"<node id or title>.<input>": value}')
        return _sized(rows, len(rows), most)
    if not isinstance(matrix, dict) or not all(isinstance(each, list) for each in matrix.values()):
        raise InvalidRequest('matrix must be an object: {"<node id or title>.<input>": [value, ...]}')
    size = math.prod(len(values) for values in matrix.values()) if matrix else 0
    return _sized(
        (dict(zip(matrix, values, strict=True)) for values in itertools.product(*matrix.values())), size, most
    )


def new_batch_id(at: datetime, idempotency_key: str | None = None) -> str:
    """Ids sort by time of creation. An id ends with the idempotency key, as that of a run."""
    return f"batch_{id_time(at)}{idempotency_key or secrets.token_hex(4)}"


def check_size(runs: int, most: int) -> None:
    """Raises: InvalidRequest."""
    if runs > most:
        raise InvalidRequest(f"A batch has at most {most} runs, and this one has {runs}")


def _sized(rows: Any, size: int, most: int) -> list[Row]:
    check_size(size, most)
    return list(rows) if size else []
