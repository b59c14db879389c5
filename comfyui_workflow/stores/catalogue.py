"""Which runs a store has: in order, by batch, and those that are wanted. It knows their ids; of a run it asks
for the summary, so that a run can change and move as it likes."""

import itertools
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from comfyui_workflow.runs.model import Run
from comfyui_workflow.runs.summary import EVERY_RUN, RunFilter, RunSummary, summary_of
from comfyui_workflow.stores import Wanted


@dataclass(kw_only=True)
class KeptRun:
    """A run in memory. Its summary is made when somebody asks, once for each change of the run."""

    run: Run
    _made: tuple[Run, RunSummary] | None = field(default=None, init=False, repr=False)

    @property
    def summary(self) -> RunSummary:
        run, made = self.run, self._made
        if made is None or made[0] is not run:
            made = self._made = (run, summary_of(run))
        return made[1]


class Catalogue:
    """Runs come, and never go. Every method may be called from any thread."""

    def __init__(self, summary_of_id: Callable[[str], RunSummary | None]) -> None:
        self._summary_of_id = summary_of_id
        self._lock = threading.Lock()
        self._ids: list[str] = []
        self._batches: dict[str, list[str]] = {}
        self._batch_of: dict[str, str] = {}

    def add(self, workflow_id: str, batch_id: str | None) -> None:
        """Again is the same as once."""
        with self._lock:
            _insert(self._ids, workflow_id)
            if batch_id is not None:
                _insert(self._batches.setdefault(batch_id, []), workflow_id)
                self._batch_of[workflow_id] = batch_id

    def latest_id(self) -> str | None:
        with self._lock:
            return self._ids[-1] if self._ids else None

    def newest_ids(self, limit: int | None = None, before: str | None = None) -> list[str]:
        with self._lock:
            return _newest(self._ids, limit, before)

    def newest(self, limit: int | None, before: str | None, wanted: Wanted) -> list[RunSummary]:
        return list(itertools.islice(self._select(before, wanted), limit))

    def grouped(self, limit: int | None, before: str | None, wanted: Wanted) -> list[RunSummary]:
        """As `newest`, but of a batch only its newest run that is wanted."""
        return list(itertools.islice(self._grouped(before, wanted), limit))

    def of_batch(self, batch_id: str) -> list[RunSummary]:
        """Oldest first."""
        with self._lock:
            ids = list(self._batches.get(batch_id, ()))
        return list(self._summaries(ids))

    def count(self, wanted: Wanted) -> int:
        if wanted == EVERY_RUN:
            with self._lock:
                return len(self._ids)
        return sum(1 for _ in self._select(None, wanted))

    def _select(self, before: str | None, wanted: Wanted) -> Iterator[RunSummary]:
        """Newest first."""
        return filter(_matcher(wanted), self._summaries(self._candidates(before, wanted)))

    def _grouped(self, before: str | None, wanted: Wanted) -> Iterator[RunSummary]:
        """Of the runs of a batch that was met no summary is looked at."""
        met: set[str | None] = set()
        ids = (each for each in self._candidates(before, wanted) if self._batch_of.get(each) not in met)
        for summary in filter(_matcher(wanted), self._summaries(ids)):
            batch_id = self._batch_of.get(summary.workflow_id)
            if batch_id is not None:
                met.add(batch_id)
            if batch_id is None or before is None or not self._has_from(batch_id, before, wanted):
                yield summary

    def _has_from(self, batch_id: str, start: str, wanted: Wanted) -> bool:
        """Whether the batch has a wanted run that is not older than that one."""
        with self._lock:
            ids = self._batches[batch_id]
            ids = ids[bisect_left(ids, start) :]
        return any(map(_matcher(wanted), self._summaries(ids)))

    def _candidates(self, before: str | None, wanted: Wanted) -> list[str]:
        """Newest first."""
        batch_id = wanted.batch_id if isinstance(wanted, RunFilter) else None
        with self._lock:
            return _newest(self._ids if batch_id is None else self._batches.get(batch_id, []), None, before)

    def _summaries(self, ids: Iterable[str]) -> Iterator[RunSummary]:
        return (summary for summary in map(self._summary_of_id, ids) if summary is not None)


def _matcher(wanted: Wanted) -> Callable[[RunSummary], bool]:
    return wanted.matches if isinstance(wanted, RunFilter) else wanted


def _insert(ids: list[str], workflow_id: str) -> None:
    """Most come last."""
    place = len(ids) if not ids or ids[-1] < workflow_id else bisect_left(ids, workflow_id)
    if ids[place : place + 1] != [workflow_id]:
        ids.insert(place, workflow_id)


def _newest(ids: list[str], limit: int | None, before: str | None) -> list[str]:
    end = len(ids) if before is None else bisect_left(ids, before)
    return ids[0 if limit is None else max(0, end - limit) : end][::-1]
