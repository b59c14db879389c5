"""Where runs are kept. Every store keeps the one contract of `Store`."""

from collections.abc import Callable
from typing import Protocol

from comfyui_workflow.runs.events import Saving
from comfyui_workflow.runs.model import Run

Change = Callable[[Run], Run]


class Store(Protocol):
    """Keeps runs, newest last by id. Every method may be called from any thread."""

    def add(self, run: Run) -> None:
        """Keep a new run. Raises: StoreError when it cannot be saved; then there is no such run."""

    def get(self, workflow_id: str) -> Run | None: ...

    def update(self, workflow_id: str, change: Change, saving: Saving = Saving.STEP) -> Run:
        """Replace a run by `change(run)`, which is pure and may be called more than once; no two updates of
        one run overlap. Raises: RunNotFound; StoreError when it must be saved and cannot: nothing changed."""

    def latest(self) -> Run | None:
        """The run that was added last."""

    def unfinished(self) -> list[Run]:
        """Oldest first."""

    def page(self, limit: int, before: str | None = None) -> list[Run]:
        """Newest first, at most `limit`, older than the run `before`."""

    def count(self) -> int: ...

    def close(self) -> None: ...
