"""Interface of executors: they decide where and when runs are executed."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import Stopped
from comfyui_workflow.runs.model import Placement, Run


class ExecutionContext(Protocol):
    """Services of the executor for a run that it executes."""

    @property
    def stop(self) -> CancelToken:
        """Cancelled when the run must stop. It continues at the next start of the server."""

    @property
    def cancelled(self) -> CancelToken:
        """Cancelled when the cancellation of the run was requested."""

    @property
    def instance_gone(self) -> CancelToken:
        """Cancelled when the named instance of the run was removed. Only a hint: ask `is_instance_gone`."""

    def placement(self, run: Run) -> Placement | None:
        """The instance to use, with its current data. None: use the ssh string of the request."""

    def is_instance_gone(self, run: Run) -> bool:
        """True if the named instance of the run was removed."""

    def submission_slot(
        self, abort: CancelToken, *, may_overwrite: bool = False
    ) -> AbstractContextManager[None]:
        """Holds the instance's submission slot: one prompt is submitted at a time. With `may_overwrite`, the
        prompt could overwrite files of another run: it waits until those are downloaded, and no other prompt
        of that kind is submitted before this run ends. Raises: Stopped."""

    def submissions_held(self, abort: CancelToken) -> AbstractContextManager[None]:
        """Within the block no prompt of this server's runs is submitted to the instance. Raises: Stopped."""

    def release_slot(self) -> None:
        """Call it when the prompt no longer executes, so that the next one may be submitted."""

    def reason_to_leave(self, run: Run, error: Exception, failing_for_s: float) -> str | None:
        """Returns a sentence if the run should leave its instance after this error, to be assigned to another
        one; else None."""


class Preempted(Stopped):
    """The run waited for the submission slot, but should leave the instance: another run goes first, or
    another instance is better."""


Execute = Callable[[str, ExecutionContext], None]
"""`execute(run_id, context)` returns when the run is finished or has left its instance, or soon after
`context.stop` is cancelled."""


@dataclass(frozen=True, kw_only=True)
class QueueStatus:
    """The status of a run that waits to be started."""

    position: int
    """The number of runs and prompts before it."""
    message: str | None
    """None: use the message of the run."""


class Executor(Protocol):
    def start(self, run_id: str) -> None:
        """Schedules the run and returns at once (except in `inline`)."""

    def recheck(self, run_id: str) -> None:
        """Call it after the run was cancelled or its priority changed."""

    def cancel_waiting(self, run_ids: Sequence[str], reason: str | None) -> list[str]:
        """Cancels those of the runs that wait to be started, and returns their ids. They never start, and
        soon end as cancelled. Much faster than cancelling many runs one by one."""

    def queue_status(self, run_id: str) -> QueueStatus | None:
        """None for a run whose prompt is or was at the instance."""

    def stop(self, timeout_s: float) -> bool:
        """Stops all runs and starts no others. Returns True if all stopped in time."""


@dataclass(frozen=True, kw_only=True)
class UnlimitedContext:
    """The context of a run whose executor has no limits."""

    stop: CancelToken
    cancelled: CancelToken = field(default_factory=CancelToken)
    instance_gone: CancelToken = field(default_factory=CancelToken)

    def placement(self, run: Run) -> Placement | None:
        return run.placement

    def is_instance_gone(self, run: Run) -> bool:
        return False

    def submission_slot(
        self, abort: CancelToken, *, may_overwrite: bool = False
    ) -> AbstractContextManager[None]:
        return nullcontext()

    def submissions_held(self, abort: CancelToken) -> AbstractContextManager[None]:
        return nullcontext()

    def release_slot(self) -> None:
        pass

    def reason_to_leave(self, run: Run, error: Exception, failing_for_s: float) -> str | None:
        return None
