"""Estimated durations of prompts: the median of recent prompts with the same graph on the same instance."""

import threading
from collections.abc import Iterable, Iterator
from statistics import median

from comfyui_workflow.runs.model import Run
from comfyui_workflow.runs.summary import RunSummary, summary_of
from comfyui_workflow.runs.target import read_any
from comfyui_workflow.stores.base import DurationSample
from comfyui_workflow.stores.journal import RunJournal

LEARNED_FROM = 5
"""Number of most recent prompts per key. Older ones say little: the instance may have become slower, or its
models may be loaded by now."""

MOST_KNOWN = 2000
"""Maximum number of pairs of instance and graph signature that are kept: the most recently used ones."""

_Key = tuple[str, str]


class DurationEstimates:
    """Estimates for unfinished runs, updated from each run that finishes. Thread-safe."""

    def __init__(self, journal: RunJournal) -> None:
        self._lock = threading.Lock()
        self._last_s: dict[_Key, tuple[float, ...]] = {}
        journal.listen(self._learn_of_run)

    def learn(self, oldest_first: Iterable[DurationSample]) -> None:
        """Adds samples, oldest first."""
        with self._lock:
            for summary in oldest_first:
                self._learn(summary)

    def expected_s(self, summary: RunSummary) -> float | None:
        """Returns the expected duration in seconds. None if it is unknown, or if the run is finished."""
        if summary.is_finished:
            return None
        key = next(_keys(summary), None)
        with self._lock:
            known = self._last_s.get(key, ()) if key else ()
        return median(known) if known else None

    def _learn_of_run(self, run: Run) -> None:
        self.learn([summary_of(run)])

    def _learn(self, summary: DurationSample) -> None:
        if summary.prompt_s is not None:
            for key in _keys(summary):
                self._last_s[key] = (*self._last_s.pop(key, ()), summary.prompt_s)[-LEARNED_FROM:]
            while len(self._last_s) > MOST_KNOWN:
                del self._last_s[next(iter(self._last_s))]


def _keys(summary: DurationSample) -> Iterator[_Key]:
    """Yields the keys of a sample: the instance, if known, and the ssh string.

    A waiting run has an ssh string before it has an instance."""
    if summary.graph_signature is None:
        return
    if summary.instance_id is not None:
        yield summary.instance_id, summary.graph_signature
    if read_any(summary.ssh_connection) is None:
        yield summary.ssh_connection, summary.graph_signature
