"""The only writer of runs: applies events to runs, saves them and wakes waiting threads."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from comfyui_workflow.errors import RunNotFound
from comfyui_workflow.runs.batch import last_start
from comfyui_workflow.runs.credentials import NO_SECRETS, RequestSecrets, decode_secrets, encode_secrets
from comfyui_workflow.runs.events import Event
from comfyui_workflow.runs.model import Run, needs_url_secrets
from comfyui_workflow.runs.state_machine import apply
from comfyui_workflow.stores.base import RunStore
from comfyui_workflow.stores.files.api_keys import ApiKeys


def now() -> datetime:
    return datetime.now(UTC)


class RunJournal:
    """See the module. Thread-safe."""

    def __init__(
        self,
        store: RunStore,
        clock: Callable[[], datetime] = now,
        api_keys: ApiKeys | None = None,
        url_secrets: ApiKeys | None = None,
    ) -> None:
        self._store = store
        self._url_secrets = url_secrets or ApiKeys()
        self._api_keys = api_keys or ApiKeys()
        self._clock = clock
        self._changed = threading.Condition()
        self._before_adding: list[Callable[[Sequence[Run]], None]] = []
        self._on_status: list[Callable[[Run], None]] = []
        self._on_finish: list[Callable[[Run], None]] = []
        self._on_reopening: list[Callable[[Run], None]] = []
        self._resumed: set[str] = set()
        self._status_version = int(clock().timestamp() * 1000)  # differs from an earlier process

    @property
    def status_version(self) -> int:
        """Version number of the statuses: it grows when runs are added and when the status of a run
        changes."""
        return self._status_version

    def resume_run(self, run_ids: Iterable[str]) -> None:
        """Marks runs as resumed from an earlier process: their records may lack their last changes."""
        self._resumed.update(run_ids)

    def is_resumed(self, run_id: str) -> bool:
        return run_id in self._resumed

    def listen_before_adding(self, before_adding: Callable[[Sequence[Run]], None]) -> None:
        """Registers a callback for new runs, called before they are saved. If it raises a StoreError,
        they are not added."""
        self._before_adding.append(before_adding)

    def listen_for_statuses(self, on_status: Callable[[Run], None]) -> None:
        """Registers a callback for each change of a status, called as with `listen`, before the others."""
        self._on_status.append(on_status)

    def listen(self, on_finish: Callable[[Run], None]) -> None:
        """Registers a callback for each run that has finished, called in the thread that recorded the end."""
        self._on_finish.append(on_finish)

    def listen_for_reopening(self, on_reopening: Callable[[Run], None]) -> None:
        """Registers a callback for each finished run that continues, called as with `listen`."""
        self._on_reopening.append(on_reopening)

    def add(self, run: Run, api_key: str | None = None) -> None:
        """Adds a run; `api_key` as in `add_all`. Raises: StoreError."""
        self.add_all([run], {} if api_key is None else {run.run_id: api_key})

    def add_all(self, runs: Sequence[Run], api_keys: Mapping[str, str] | None = None) -> None:
        """Adds all runs or, after an error, none. `api_keys`: the Comfy.org API keys by run id. Each is
        stored until ComfyUI has accepted the prompt or the run has ended. Raises: StoreError."""
        for callback in self._before_adding:
            callback(runs)
        with self._with_keys(api_keys or {}), self._with_secrets(runs):
            self._store.add_all([_without_secrets(run) for run in runs])
        self._wake(is_status_change=True)

    @contextmanager
    def _with_keys(self, api_keys: Mapping[str, str]) -> Iterator[None]:
        """Stores the keys before the block adds their runs: a run that was accepted has its key. Keys without
        a run are removed, here after an error, and at the next start after a crash."""
        self._api_keys.put_all(api_keys)
        try:
            yield
        except BaseException:
            for run_id in api_keys:
                self._api_keys.forget(run_id)
            raise

    @contextmanager
    def _with_secrets(self, runs: Sequence[Run]) -> Iterator[None]:
        """Stores the credentials that the requests bring, in the same way."""
        secrets = {run.run_id: encode_secrets(run.request.secrets) for run in runs if run.request.secrets}
        self._url_secrets.put_all(secrets)
        try:
            yield
        except BaseException:
            for run_id in secrets:
                self._url_secrets.forget(run_id)
            raise

    def record(self, run_id: str, event: Event) -> Run:
        """Applies an event to a run and saves it. Returns the changed run.

        Raises: RunNotFound; StoreError if the event must be on disk and cannot be saved."""
        return self._record(run_id, event)[1]

    def is_changed_by(self, run_id: str, event: Event) -> bool:
        """Records an event. Returns True if the event changed the run. Raises: as `record`."""
        before, after = self._record(run_id, event)
        return after is not before

    def _record(self, run_id: str, event: Event) -> tuple[Run, Run]:
        """Returns the run before and after the event."""
        at = self._clock()
        before: list[Run] = []

        def change(run: Run) -> Run:
            before[:] = [run]
            return apply(run, event, at)

        run = self._store.update(run_id, change, event.saving)
        if run.is_finished or (run.is_accepted and not before[0].is_accepted):
            self._api_keys.forget(run_id)
        if run.is_finished and not needs_url_secrets(run):
            self._url_secrets.forget(run_id)
        is_status_change = run.status is not before[0].status
        self._wake(is_status_change=is_status_change)
        if is_status_change:
            for callback in self._on_status:
                callback(run)
        if run.is_finished is not before[0].is_finished:
            for callback in self._on_finish if run.is_finished else self._on_reopening:
                callback(run)
        return before[0], run

    def get(self, run_id: str) -> Run:
        """Raises: RunNotFound."""
        run = self._store.get(run_id)
        if run is None:
            raise RunNotFound(f"Workflow not found: {run_id}")
        return run

    def api_key(self, run_id: str) -> str | None:
        """Returns the API key; None if the run has none, or the key was removed."""
        return self._api_keys.get(run_id)

    def url_secrets(self, run_id: str) -> RequestSecrets:
        """Returns the credentials for the URLs of a run; none if they were removed. Raises: StoreError."""
        content = self._url_secrets.get(run_id)
        return NO_SECRETS if content is None else decode_secrets(content)

    def last_start(self, batch_id: str) -> datetime | None:
        """Returns the latest start time of a batch's runs."""
        return last_start(self._store.of_batch(batch_id))

    def wait(self, run_id: str, until: Callable[[Run], bool], timeout_s: float) -> Run:
        """Waits until `until(run)` is true or the timeout is over, and returns the run. Raises:
        RunNotFound."""
        with self._changed:
            self._changed.wait_for(lambda: until(self.get(run_id)), timeout_s)
        return self.get(run_id)

    def _wake(self, *, is_status_change: bool) -> None:
        with self._changed:
            self._status_version += is_status_change
            self._changed.notify_all()


def _without_secrets(run: Run) -> Run:
    return replace(run, request=replace(run.request, secrets=NO_SECRETS)) if run.request.secrets else run
