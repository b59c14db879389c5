"""The only writer of runs: applies events to them, keeps them, wakes who waits."""

import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from comfyui_workflow.errors import RunNotFound
from comfyui_workflow.runs.batch import last_start
from comfyui_workflow.runs.events import Event
from comfyui_workflow.runs.model import Run
from comfyui_workflow.runs.state_machine import apply
from comfyui_workflow.stores.base import RunStore
from comfyui_workflow.stores.files.api_keys import ApiKeys


def now() -> datetime:
    return datetime.now(UTC)


class RunJournal:
    """Every method may be called from any thread."""

    def __init__(
        self, store: RunStore, clock: Callable[[], datetime] = now, api_keys: ApiKeys | None = None
    ) -> None:
        self._store = store
        self._api_keys = api_keys or ApiKeys()
        self._clock = clock
        self._changed = threading.Condition()
        self._on_finish: list[Callable[[Run], None]] = []
        self._on_reopening: list[Callable[[Run], None]] = []
        self._taken_up: set[str] = set()
        self._turning_points = int(clock().timestamp() * 1000)  # not the number of an earlier process

    @property
    def turning_points(self) -> int:
        """Grows whenever runs are added, and when one begins, ends, or is to begin again."""
        return self._turning_points

    def resume_run(self, run_ids: Iterable[str]) -> None:
        """Runs that were there before this process: their records may be older than what they did."""
        self._taken_up.update(run_ids)

    def is_resumed(self, run_id: str) -> bool:
        return run_id in self._taken_up

    def listen(self, on_finish: Callable[[Run], None]) -> None:
        """Called with each run that has just finished, in the thread that recorded its end."""
        self._on_finish.append(on_finish)

    def listen_for_reopening(self, on_reopening: Callable[[Run], None]) -> None:
        """As `listen`, with each that was finished and is to go on."""
        self._on_reopening.append(on_reopening)

    def add(self, run: Run) -> None:
        """Raises: StoreError."""
        self._store.add(run)
        self._wake(is_turning_point=True)

    def add_all(self, runs: Sequence[Run]) -> None:
        """All of them, or none. Raises: StoreError."""
        self._store.add_all(runs)
        self._wake(is_turning_point=True)

    def record(self, run_id: str, event: Event) -> Run:
        """Raises: RunNotFound; StoreError, when the event must be on disk and cannot be."""
        return self._record(run_id, event)[1]

    def is_changed_by(self, run_id: str, event: Event) -> bool:
        """Record it; whether it made any difference. Raises: as `record`."""
        before, after = self._record(run_id, event)
        return after is not before

    def _record(self, run_id: str, event: Event) -> tuple[Run, Run]:
        """The run before and after."""
        at = self._clock()
        before: list[Run] = []

        def change(run: Run) -> Run:
            before[:] = [run]
            return apply(run, event, at)

        run = self._store.update(run_id, change, event.saving)
        if run.is_finished or (run.is_accepted and not before[0].is_accepted):
            self._api_keys.forget(run_id)
        self._wake(is_turning_point=run.status is not before[0].status)
        if run.is_finished is not before[0].is_finished:
            for tell in self._on_finish if run.is_finished else self._on_reopening:
                tell(run)
        return before[0], run

    def get(self, run_id: str) -> Run:
        """Raises: RunNotFound."""
        run = self._store.get(run_id)
        if run is None:
            raise RunNotFound(f"Workflow not found: {run_id}")
        return run

    def keep_api_key(self, run_id: str, key: str) -> None:
        """Until ComfyUI has accepted the prompt of the run, or it has ended. Raises: StoreError."""
        self._api_keys.put(run_id, key)

    def api_key(self, run_id: str) -> str | None:
        """None where the run came without one, and once it is gone."""
        return self._api_keys.get(run_id)

    def last_start(self, batch_id: str) -> datetime | None:
        """Latest start among the runs of a batch."""
        return last_start(self._store.of_batch(batch_id))

    def wait(self, run_id: str, until: Callable[[Run], bool], timeout_s: float) -> Run:
        """The run as soon as `until` holds, or as it is when the time is over. Raises: RunNotFound."""
        with self._changed:
            self._changed.wait_for(lambda: until(self.get(run_id)), timeout_s)
        return self.get(run_id)

    def _wake(self, *, is_turning_point: bool) -> None:
        with self._changed:
            self._turning_points += is_turning_point
            self._changed.notify_all()
