"""A batch: many runs ordered at once, with a progress of their own."""

import itertools
import math
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.runs.model import RunRequest, RunStatus, id_time
from comfyui_workflow.runs.retryability import retry_refusal
from comfyui_workflow.runs.summary import MOST_PICTURES, RunSummary

Row = dict[str, Any]
"""Values by `<node id or title>.<input>`, for one run."""


class OnError(StrEnum):
    """What becomes of the other runs when one has failed."""

    CONTINUE = "continue"
    STOP = "stop"
    """Those that wait are cancelled; prompts that are at an instance are paid for, and end as they end."""


@dataclass(frozen=True, kw_only=True)
class BatchOrder:
    """What a person asked for."""

    requests: tuple[RunRequest, ...]
    name: str
    stagger_s: float = 0.0
    """Between the starts of two runs."""
    on_error: OnError = OnError.CONTINUE


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Its runs know it by its id, and are told apart by theirs, which sort as they were ordered."""

    batch_id: str
    name: str
    created_at: datetime
    total: int
    stagger_s: float = 0.0
    on_error: OnError = OnError.CONTINUE
    cancelled_at: datetime | None = None
    """When somebody cancelled all that was not finished then."""


@dataclass(frozen=True, kw_only=True)
class BatchProgress:
    batch: Batch
    counts: Mapping[RunStatus, int]
    percent: float
    """The mean of its runs."""
    gpu_s: float
    cost: float | None
    """None where no run has a price."""
    unpriced: int
    """Runs that the GPU worked for at no known price, which the cost lacks."""
    start_time: datetime | None
    end_time: datetime | None
    failures: tuple[RunSummary, ...]
    pictures: tuple[tuple[str, int], ...]
    """Run and number of the output: one of each of the newest runs that have any, before a second one."""

    @property
    def can_retry(self) -> bool:
        """A retry of one of its runs would be accepted."""
        return any(retry_refusal(run) is None for run in self.failures)

    @property
    def status(self) -> RunStatus:
        """Once all are finished, the worst of them."""
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
        pictures=tuple(itertools.islice(_pictures(runs), MOST_PICTURES)),
    )


def _pictures(runs: Sequence[RunSummary]) -> Iterator[tuple[str, int]]:
    newest_first = [run for run in reversed(runs) if run.pictures]
    yield from ((run.run_id, run.pictures[0]) for run in newest_first)
    yield from ((run.run_id, number) for run in newest_first for number in run.pictures[1:])


def last_start(runs: Iterable[RunSummary]) -> datetime | None:
    """The latest of those whose prompt was submitted: when it began, or was last heard of before that."""
    submitted = (run for run in runs if run.prompt_id is not None)
    return max((run.start_time or run.last_update for run in submitted), default=None)


def rows_of(matrix: object, rows: object, most: int) -> list[Row]:
    """`rows` as they are, or one for each combination of a `matrix` of `{input: [value, …]}`, in which the
    last input changes fastest. Raises: InvalidRequest."""
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


def new_batch_id(at: datetime) -> str:
    """Sorts by time of creation."""
    return f"batch_{id_time(at)}{secrets.token_hex(4)}"


def check_size(runs: int, most: int) -> None:
    """Raises: InvalidRequest."""
    if runs > most:
        raise InvalidRequest(f"A batch has at most {most} runs, and this one has {runs}")


def _sized(rows: Any, size: int, most: int) -> list[Row]:
    check_size(size, most)
    return list(rows) if size else []
