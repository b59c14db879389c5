"""Where runs are kept. Every store keeps the one contract of `Store`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from comfyui_workflow.runs.events import Saving
from comfyui_workflow.runs.model import OutputFile, Run
from comfyui_workflow.runs.summary import EVERY_RUN, RunFilter, RunSummary

Change = Callable[[Run], Run]
Wanted = RunFilter | Callable[[RunSummary], bool]


class Lesson(Protocol):
    """What can be learned from a finished run: fields of its summary."""

    @property
    def ssh_connection(self) -> str: ...

    @property
    def instance_id(self) -> str | None: ...

    @property
    def graph_signature(self) -> str | None: ...

    @property
    def prompt_s(self) -> float | None: ...


class Store(Protocol):
    """Keeps runs, newest last by id. Every method may be called from any thread."""

    def add(self, run: Run) -> None:
        """Keep a new run. Raises: StoreError when it cannot be saved; then there is no such run."""

    def add_all(self, runs: Sequence[Run]) -> None:
        """Keep new runs, all of them on disk when this returns; of many it is much faster than one by one.
        A power cut before it returns may leave some. Raises: StoreError when one of them cannot be saved;
        then there is none of them."""

    def get(self, run_id: str) -> Run | None: ...

    def inputs(self, run_id: str) -> Mapping[str, Any] | None:
        """Of its request. Ten thousand of them are read faster than the runs."""

    def outputs(self, run_id: str) -> Sequence[OutputFile] | None:
        """As for `inputs`."""

    def update(self, run_id: str, change: Change, saving: Saving = Saving.STEP) -> Run:
        """Replace a run by `change(run)`, which is pure and may be called more than once; no two updates of
        one run overlap. Raises: RunNotFound; StoreError when it must be saved and cannot: nothing changed."""

    def latest(self) -> Run | None:
        """The run that was added last."""

    def unfinished(self) -> list[Run]:
        """Oldest first."""

    def page(self, limit: int, before: str | None = None) -> list[Run]:
        """Newest first, at most `limit`, older than the run `before`."""

    def summaries(
        self, limit: int | None = None, before: str | None = None, wanted: Wanted = EVERY_RUN
    ) -> list[RunSummary]:
        """Of the runs that are wanted, newest first, at most `limit`, older than the run `before`. No record
        is read for it."""

    def grouped(
        self, limit: int | None = None, before: str | None = None, wanted: Wanted = EVERY_RUN
    ) -> list[RunSummary]:
        """As `summaries`, but of the runs of one batch only the newest that is wanted; none, where that is
        not older than the run `before`."""

    def of_batch(self, batch_id: str) -> list[RunSummary]:
        """Oldest first."""

    def count(self, wanted: Wanted = EVERY_RUN) -> int: ...

    def latest_id(self) -> str | None:
        """The greatest id there is."""

    def by_idempotency_key(self, key: str) -> str | None:
        """Id of the newest run that was ordered with this key, of all there are, also after a restart. The id
        tells the key (`idempotency_key_of`), so no record is read."""

    def batch_stamp(self, batch_id: str) -> int | None:
        """Another number whenever a run of the batch has changed; None while one of them is not finished."""

    def lessons(self, most: int) -> Sequence[Lesson]:
        """Of the newest finished runs those whose prompt told how long it takes, oldest first."""

    def close(self) -> None: ...
