"""Where and when runs are carried out."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import Stopped
from comfyui_workflow.runs.model import Placement, Run


class ExecutionContext(Protocol):
    """What a run that is being carried out may ask of the executor that gave it its turn."""

    @property
    def stop(self) -> CancelToken:
        """Cancelled when the run is to come to rest: it is carried on at the next start."""

    @property
    def cancelled(self) -> CancelToken:
        """Cancelled when somebody has asked for the end of the run."""

    @property
    def instance_gone(self) -> CancelToken:
        """Cancelled when the named instance of the run was removed. A hint: `is_instance_gone` tells."""

    def placement(self, run: Run) -> Placement | None:
        """Where to go, as it is known now. None: where the ssh string of the request leads."""

    def is_instance_gone(self, run: Run) -> bool:
        """Whether the named instance that it was given to has been removed."""

    def place(self, abort: CancelToken, *, may_overwrite: bool = False) -> AbstractContextManager[None]:
        """Holds the instance's submission slot: one prompt is submitted at a time. A prompt that
        `may_overwrite` files of another one waits until those are fetched, and until the run ends no other of
        that kind is submitted. Raises: Stopped."""

    def release_slot(self) -> None:
        """The prompt executes no more: the next one may come."""

    def reason_to_leave(self, run: Run, error: Exception, failing_for_s: float) -> str | None:
        """A sentence when, after this error, the run should leave its instance to be given to another."""


class Preempted(Stopped):
    """The run was about to be next, and another one goes first."""


Execute = Callable[[str, ExecutionContext], None]
"""`execute(run_id, turn)`: returns when the run is finished or has left its instance, or soon after
`turn.stop` is cancelled."""


@dataclass(frozen=True, kw_only=True)
class QueueStatus:
    """Of a run that waits for its turn."""

    position: int
    """How many go before it."""
    message: str | None
    """None: what the run says of itself."""


class Executor(Protocol):
    def start(self, run_id: str) -> None:
        """Carry the run out, sooner or later; returns at once (but for `inline`)."""

    def recheck(self, run_id: str) -> None:
        """The run was cancelled, or got another priority."""

    def cancel_waiting(self, run_ids: Sequence[str], reason: str | None) -> list[str]:
        """Of these, the ones that wait for their turn, which they never get from now on: soon they end as
        cancelled. Of many it is much faster than one by one."""

    def standing(self, run_id: str) -> QueueStatus | None:
        """None for a run whose prompt is at the instance, or was."""

    def stop(self, timeout_s: float) -> bool:
        """Stop carrying out, and start nothing any more. Whether all came to rest in time."""


@dataclass(frozen=True, kw_only=True)
class UnlimitedContext:
    """The turn of a run whose executor limits nothing."""

    stop: CancelToken
    cancelled: CancelToken = field(default_factory=CancelToken)
    instance_gone: CancelToken = field(default_factory=CancelToken)

    def placement(self, run: Run) -> Placement | None:
        return run.placement

    def is_instance_gone(self, run: Run) -> bool:
        return False

    def place(self, abort: CancelToken, *, may_overwrite: bool = False) -> AbstractContextManager[None]:
        return nullcontext()

    def release_slot(self) -> None:
        pass

    def reason_to_leave(self, run: Run, error: Exception, failing_for_s: float) -> str | None:
        return None
