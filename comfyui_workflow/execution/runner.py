"""Executes one run from its current state to its end.

How it works. A first start, a broken tunnel and a restarted server are the same case. Each attempt opens a
session to the instance, asks ComfyUI for the prompt, and continues from there. Between attempts it waits with
a backoff.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.delivery.output_uploads import not_uploaded_sentence
from comfyui_workflow.errors import (
    ComfyUIError,
    ComfyUINotFound,
    DataTaken,
    InstanceBroken,
    InstanceError,
    InvalidGraph,
    Stopped,
    StorageError,
    StoreError,
    WorkflowError,
)
from comfyui_workflow.execution.attempt import RunAttempt
from comfyui_workflow.execution.live_progress import LiveProgress, OnBytes
from comfyui_workflow.execution.outputs import not_fetched_sentence, remove_parts
from comfyui_workflow.execution.preparations import Preparations
from comfyui_workflow.execution.storage_steps import StorageSteps
from comfyui_workflow.execution.submit import SubmissionContext
from comfyui_workflow.parsing.ssh_address import SshAddress
from comfyui_workflow.provisioning.provisioners import Provisioners, no_provisioners
from comfyui_workflow.retry import Backoff, HighWaterMarks
from comfyui_workflow.runs.events import (
    AttemptFailed,
    Event,
    InstanceChosen,
    InstanceLeft,
    NoticeAdded,
    PhaseEntered,
    PortChosen,
    RunCancelled,
    RunCompleted,
    RunFailed,
)
from comfyui_workflow.runs.model import Phase, Run
from comfyui_workflow.scheduling.executor import ExecutionContext
from comfyui_workflow.sessions.leases import lease_comfyui
from comfyui_workflow.sessions.session import ComfyUISession, InstanceKey, key_of
from comfyui_workflow.ssh.pool import Pool
from comfyui_workflow.stores.journal import RunJournal

log = logging.getLogger(__name__)

CONFIRMED_AFTER_S = 4.0
"""Another program on the port of ComfyUI is believed after this time: a proxy may show a page of its own for
a moment."""

Pause = Callable[[], object]
"""Waits until the next attempt."""

_INSTANCE_REMOVED = (
    "Cancelled. Its instance was removed and does not answer, so the prompt could not be stopped there: "
    "it may still run"
)


@dataclass(frozen=True, kw_only=True)
class RunnerOptions:
    """Time limits for retries. Before the prompt is submitted, a person waits, so the limit is short.
    Afterwards a picture would be lost, so the limit is long."""

    contact_patience_s: float = 120.0
    lost_contact_patience_s: float = 86_400.0
    cancel_patience_s: float = 30.0
    storage_patience_s: float = 600.0
    resubmissions_of_running: int = 1
    stall_limit_s: float = 3600.0


class Runner:
    def __init__(
        self,
        journal: RunJournal,
        sessions: Pool[InstanceKey, ComfyUISession],
        options: RunnerOptions,
        live_view: LiveProgress,
        sender: SubmissionContext | None = None,
        *,
        storage: StorageSteps | None = None,
        provisioners: Provisioners | None = None,
        preparations: Preparations | None = None,
    ) -> None:
        self._preparations = preparations or Preparations(sessions)
        self._provisioners = provisioners or no_provisioners()
        self._sender = sender or SubmissionContext()
        self._storage = storage
        self._journal = journal
        self._sessions = sessions
        self._options = options
        self._live_view = live_view

    def execute(self, run_id: str, context: ExecutionContext) -> None:
        """Returns when the run is finished or has left its instance, or soon after `context.stop` is
        cancelled; then the run continues at the next start. Also returns if another server works on the data.
        Never raises: every error becomes the status of the run."""
        with suppress(DataTaken):
            self._run_attempts(run_id, context)

    def _run_attempts(self, run_id: str, context: ExecutionContext) -> None:
        backoff = Backoff()
        high_water_marks = HighWaterMarks(backoff.reset)
        while not context.stop.is_set:
            pause = None
            try:
                self._attempt(run_id, context, backoff, high_water_marks)
            except DataTaken:
                raise
            except Exception as error:  # noqa: BLE001 - the run must end, whatever happened
                pause = self._end_or_retry(run_id, error, backoff, context)
                if pause is None:
                    return
            if pause is not None:  # not above: the error keeps the connections of the attempt in memory
                pause()
            if self._journal.get(run_id).is_finished:
                return

    def _end_or_retry(
        self, run_id: str, error: Exception, backoff: Backoff, context: ExecutionContext
    ) -> Pause | None:
        """Records what a failed attempt means for the run. Returns None if it has ended, or has left the
        instance."""
        ending = self._final_event(run_id, error, backoff, context)
        unresolved = error if ending is None else self._record_final_event(run_id, ending)
        if unresolved is None:
            return None
        return self._record_failed_attempt(run_id, unresolved, backoff, context)

    def _attempt(
        self, run_id: str, context: ExecutionContext, backoff: Backoff, high_water_marks: HighWaterMarks
    ) -> None:
        """A successful connection is no progress: a broken network may pass small packets and nothing
        else."""
        run = self._journal.get(run_id)
        if run.is_finished:
            return
        if run.are_outputs_known and not run.has_missing_outputs and not run.is_uploading:
            # the server stopped just before it recorded the end
            remove_parts(run)
            self._journal.record(run_id, RunCompleted())
            return
        with self._abort_token(run_id, context) as abort:
            abort.check()
            if self._transfer(run, high_water_marks, abort):
                return
            self._attempt_on_session(
                self._with_placement(run, context), context, backoff, high_water_marks, abort
            )

    def _transfer(self, run: Run, high_water_marks: HighWaterMarks, abort: CancelToken) -> bool:
        """The steps that need no instance: inputs from and outputs to external storage. True if the run has
        ended."""
        if self._storage is None or not (run.request.downloads or run.is_uploading):
            return False
        record = partial(self._journal.record, run.run_id)
        with self._live_view.open(run.run_id, _report_bytes_to(high_water_marks)) as live:
            if not run.is_uploading:
                self._storage.download_inputs(run, live, record, abort)
                return False
            self._storage.upload_outputs(run, live, record, abort)
        remove_parts(run)
        record(RunCompleted())
        return True

    def _attempt_on_session(
        self,
        run: Run,
        context: ExecutionContext,
        backoff: Backoff,
        high_water_marks: HighWaterMarks,
        abort: CancelToken,
    ) -> None:
        run_id, key = run.run_id, key_of(run)
        if backoff.failing_for_s() == 0:
            self._announce(run_id, key.address)
        lease, is_again = partial(self._sessions.lease, stop=abort), backoff.failing_for_s() > 0
        with (
            lease_comfyui(lease, key, run.port_of_prompt, again=is_again) as session,
            self._live_view.open(run_id, _report_bytes_to(high_water_marks)) as live,
        ):
            backoff.note_response()
            self._note_port(run, session)
            RunAttempt(
                journal=self._journal,
                session=session,
                live=live,
                run_id=run_id,
                context=context,
                backoff=backoff,
                abort=abort,
                resubmissions_of_running=self._options.resubmissions_of_running,
                stall_limit_s=self._options.stall_limit_s,
                sender=self._sender,
                models=self._provisioners.models,
                packs=self._provisioners.packs,
                preparations=self._preparations,
            ).execute()

    def _with_placement(self, run: Run, context: ExecutionContext) -> Run:
        placement = context.placement(run)
        if placement is None or placement == run.placement:
            return run
        return self._journal.record(run.run_id, InstanceChosen(placement=placement))

    def _note_port(self, run: Run, session: ComfyUISession) -> None:
        """Records the port of ComfyUI at the first contact, and tells if it is not the one of the request."""
        if run.chosen_port == session.comfyui_port:
            return
        self._journal.record(run.run_id, PortChosen(port=session.comfyui_port))
        if session.port_notice is not None:
            self._journal.record(run.run_id, NoticeAdded(message=session.port_notice))

    def _announce(self, run_id: str, address: SshAddress) -> None:
        """Records the current action, and the options of the ssh string that are ignored."""
        for notice in address.notices:
            self._journal.record(run_id, NoticeAdded(message=notice))
        connecting = PhaseEntered(phase=Phase.CONNECTING, message="Connecting to the instance")
        self._journal.record(run_id, connecting)

    @contextmanager
    def _abort_token(self, run_id: str, context: ExecutionContext) -> Iterator[CancelToken]:
        """Yields the token of one attempt. A run whose prompt was never submitted, or whose outputs are
        known, ends as soon as it is cancelled. A run whose prompt was submitted ends when ComfyUI confirms
        it."""
        abort = CancelToken(context.stop)

        def abort_if_no_answer_is_needed() -> None:
            run = self._journal.get(run_id)
            if run.is_cancel_requested and (run.prompt_id is None or run.are_outputs_known):
                abort.cancel("the run is cancelled")

        abort_if_no_answer_is_needed()
        with context.cancelled.on_cancel(abort_if_no_answer_is_needed):
            yield abort

    def _final_event(
        self, run_id: str, error: Exception, backoff: Backoff, context: ExecutionContext
    ) -> Event | None:
        """The event that ends the run after this error, or makes it leave its instance; None if the run
        retries here."""
        run = self._journal.get(run_id)
        if run.is_cancel_requested:
            if run.prompt_id is None:
                return RunCancelled()
            if run.are_outputs_known:
                sentence = not_uploaded_sentence if run.is_uploading else not_fetched_sentence
                return RunCancelled(message=sentence(run))
            if isinstance(error, InstanceBroken):
                return RunCancelled(message=str(error))
            if isinstance(error, InstanceError | ComfyUIError) and context.is_instance_gone(run):
                return RunCancelled(message=_INSTANCE_REMOVED)
        else:
            reason = context.reason_to_leave(run, error, backoff.failing_for_s())
            if reason is not None:
                return InstanceLeft(message=reason)
        return None if isinstance(error, Stopped) else self._failure(run, error, backoff)

    def _failure(self, run: Run, error: Exception, backoff: Backoff) -> Event | None:
        if not isinstance(error, WorkflowError):
            log.exception("%s: a bug of this server", run.run_id, exc_info=error)
            return RunFailed(code="internal", message=f"Internal error: {type(error).__name__}")
        if not (error.is_transient or _is_unconfirmed(error, backoff)):
            node_id = error.node_id if isinstance(error, InvalidGraph) else None
            return RunFailed(code=error.code, message=str(error), node_id=node_id)
        return self._timeout_event(run, error, backoff.failing_for_s())

    def _timeout_event(self, run: Run, error: WorkflowError, failing_for_s: float) -> Event | None:
        if run.is_cancel_requested and failing_for_s > self._options.cancel_patience_s:
            return RunCancelled(
                message="Cancelled without an answer of the instance; the prompt may still run there"
            )
        options = self._options
        if isinstance(error, StorageError):
            is_over = failing_for_s > options.storage_patience_s
            return RunFailed(code=error.code, message=str(error)) if is_over else None
        limit_s = options.lost_contact_patience_s if run.prompt_id else options.contact_patience_s
        return RunFailed(code=error.code, message=str(error)) if failing_for_s > limit_s else None

    def _record_failed_attempt(
        self, run_id: str, error: Exception, backoff: Backoff, context: ExecutionContext
    ) -> Pause:
        if isinstance(error, Stopped):
            return lambda: None
        wait_s = backoff.next_wait_s()
        log.info("%s: %s; trying again in %.1f s", run_id, str(error), wait_s)
        was_cancelled = self._journal.get(run_id).is_cancel_requested
        aim = "trying again, to cancel the prompt there" if was_cancelled else "trying again"
        self._journal.record(run_id, AttemptFailed(message=f"{str(error).rstrip('.')}; {aim}"))
        ends_pause = CancelToken(context.stop, *_tokens_that_end_pause(context, was_cancelled=was_cancelled))
        return partial(ends_pause.wait, wait_s)

    def _record_final_event(self, run_id: str, ending: Event) -> StoreError | None:
        """Records the final event. Returns None if it is saved; otherwise the error, and the caller retries.
        Partial files are removed when the run ends, and also when it leaves the instance that has the
        remaining data."""
        run = self._journal.get(run_id)
        remove_parts(run)
        if isinstance(ending, InstanceLeft) and run.prompt_id is not None:
            self._sender.expect_copies(run)
        try:
            self._journal.record(run_id, ending)
        except StoreError as error:
            log.error("%s ended, but that cannot be saved: %s", run_id, error)
            return error
        return None


def _tokens_that_end_pause(context: ExecutionContext, *, was_cancelled: bool) -> tuple[CancelToken, ...]:
    """The tokens that end a pause early: the cancel request; after that, the removal of the instance, which
    is handled once."""
    if not was_cancelled:
        return (context.cancelled,)
    return () if context.instance_gone.is_set else (context.instance_gone,)


def _report_bytes_to(high_water_marks: HighWaterMarks) -> OnBytes:
    return lambda direction, filename, done_bytes: high_water_marks.note((direction, filename), done_bytes)


def _is_unconfirmed(error: WorkflowError, backoff: Backoff) -> bool:
    return isinstance(error, ComfyUINotFound) and backoff.failing_for_s() < CONFIRMED_AFTER_S
