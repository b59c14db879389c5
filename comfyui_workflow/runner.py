"""Carries one run from wherever it is to its end.

A first start, a broken tunnel and a restarted server are the same case: each attempt opens the way to the
instance, asks ComfyUI what it knows of our prompt, and goes on from there.
"""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from comfyui_workflow.comfyui.cancelling import Canceller
from comfyui_workflow.comfyui.following import PromptEnded, PromptFollower
from comfyui_workflow.comfyui.history import HistoryEntry, Outcome
from comfyui_workflow.errors import ComfyUIUnavailable, Stopped, StoreError, WorkflowError
from comfyui_workflow.instances.address import parse_ssh_address
from comfyui_workflow.instances.pool import Pool
from comfyui_workflow.journal import RunJournal
from comfyui_workflow.link import InstanceKey, Link
from comfyui_workflow.outputs import OutputFetcher, missing_sentence, wanted_outputs
from comfyui_workflow.patience import Patience, wait
from comfyui_workflow.runs.events import (
    Event,
    NodesPlanned,
    OutputFetched,
    OutputsFound,
    PhaseEntered,
    PromptSucceeded,
    PromptVanished,
    RunCancelled,
    RunCompleted,
    RunFailed,
    TroubleMet,
)
from comfyui_workflow.runs.model import Phase, Run, RunStatus
from comfyui_workflow.submission import Submitter, new_prompt_id
from comfyui_workflow.workflows.graph import output_ids, planned_nodes

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunnerOptions:
    """How long to try again. Before the prompt is submitted a person waits; after that a picture does."""

    contact_patience_s: float = 120.0
    lost_contact_patience_s: float = 86_400.0
    cancel_patience_s: float = 30.0
    resubmissions_of_running: int = 1


class Runner:
    def __init__(self, journal: RunJournal, links: Pool[InstanceKey, Link], options: RunnerOptions) -> None:
        self._journal = journal
        self._links = links
        self._options = options

    def execute(self, workflow_id: str, should_stop: Callable[[], bool]) -> None:
        """Returns when the run is finished, or soon after `should_stop()`; then the run goes on at the next
        start. Never raises: what goes wrong becomes the run's status."""
        patience = Patience()
        while not should_stop():
            try:
                self._attempt(workflow_id, should_stop, patience)
            except Exception as error:  # noqa: BLE001 - the run must end, whatever happened
                ending = self._ending(workflow_id, error, patience)
                if ending is None:
                    self._pause(workflow_id, error, patience, should_stop)
                elif self._end(workflow_id, ending):
                    return
            if self._journal.get(workflow_id).is_finished:
                return

    def _attempt(self, workflow_id: str, should_stop: Callable[[], bool], patience: Patience) -> None:
        run = self._journal.get(workflow_id)
        if run.is_finished:
            return
        should_abort = self._abort_condition(workflow_id, should_stop)
        if should_abort():
            raise Stopped("asked to stop before anything was submitted")
        if patience.failing_for_s() == 0:
            self._journal.record(
                workflow_id, PhaseEntered(phase=Phase.CONNECTING, message="Connecting to the instance")
            )
        address = parse_ssh_address(run.request.ssh_connection)
        key = InstanceKey(address=address, comfyui_port=run.request.comfyui_port)
        with self._links.lease(key, should_stop=should_abort) as link:
            link.client.probe()
            patience.reset()
            _Passage(
                journal=self._journal,
                link=link,
                workflow_id=workflow_id,
                should_stop=should_stop,
                should_abort=should_abort,
                options=self._options,
            ).go()

    def _abort_condition(self, workflow_id: str, should_stop: Callable[[], bool]) -> Callable[[], bool]:
        """A run whose prompt was never submitted ends as soon as it is cancelled; one that was submitted
        ends when ComfyUI says so."""

        def should_abort() -> bool:
            run = self._journal.get(workflow_id)
            return should_stop() or (run.is_cancel_requested and run.prompt_id is None)

        return should_abort

    def _ending(self, workflow_id: str, error: Exception, patience: Patience) -> Event | None:
        """How the run ends by this error; None when it goes on."""
        run = self._journal.get(workflow_id)
        if run.is_cancel_requested and run.prompt_id is None:
            return RunCancelled()
        if isinstance(error, Stopped):
            return None
        if not isinstance(error, WorkflowError):
            log.exception("%s: a bug of this server", workflow_id, exc_info=error)
            return RunFailed(code="internal", message=f"Internal error: {type(error).__name__}")
        if not error.is_transient:
            return RunFailed(code=error.code, message=str(error))
        return self._impatient_ending(run, error, patience.failing_for_s())

    def _impatient_ending(self, run: Run, error: WorkflowError, failing_for_s: float) -> Event | None:
        if run.is_cancel_requested and failing_for_s > self._options.cancel_patience_s:
            return RunCancelled(
                message="Cancelled without an answer of the instance; the prompt may still run there"
            )
        options = self._options
        limit_s = options.lost_contact_patience_s if run.prompt_id else options.contact_patience_s
        return RunFailed(code=error.code, message=str(error)) if failing_for_s > limit_s else None

    def _pause(
        self, workflow_id: str, error: Exception, patience: Patience, should_stop: Callable[[], bool]
    ) -> None:
        if isinstance(error, Stopped):
            return
        wait_s = patience.next_wait_s()
        log.info("%s: %s; trying again in %.1f s", workflow_id, error, wait_s)
        self._journal.record(workflow_id, TroubleMet(message=f"{error}; trying again"))
        was_cancelled = self._journal.get(workflow_id).is_cancel_requested
        wait(
            wait_s,
            lambda: should_stop() or self._journal.get(workflow_id).is_cancel_requested != was_cancelled,
        )

    def _end(self, workflow_id: str, ending: Event) -> bool:
        """Whether the end could be saved; the caller comes back otherwise."""
        try:
            self._journal.record(workflow_id, ending)
        except StoreError as error:
            log.error("%s ended, but that cannot be saved: %s", workflow_id, error)
            return False
        return True


@dataclass(frozen=True, kw_only=True)
class _Passage:
    """One run on one open link, from what ComfyUI knows of it to its end."""

    journal: RunJournal
    link: Link
    workflow_id: str
    should_stop: Callable[[], bool]
    should_abort: Callable[[], bool]
    options: RunnerOptions

    def go(self) -> None:
        """Raises: Stopped; whatever ends the run or interrupts the way to the instance."""
        run = self._run()
        if run.are_outputs_known:
            self._fetch_outputs()
            self._complete()
            return
        self._plan_nodes(run)
        ended = self._submit_and_follow(run)
        if ended.entry is None:
            self._vanished()
        else:
            self._conclude(ended.entry)

    def _run(self) -> Run:
        return self.journal.get(self.workflow_id)

    def _record(self, event: Event) -> Run:
        return self.journal.record(self.workflow_id, event)

    def _plan_nodes(self, run: Run) -> None:
        """With the instance's node definitions it is known which nodes are outputs."""
        outputs = output_ids(run.request.graph, self.link.definitions())
        nodes = planned_nodes(run.request.graph, outputs)
        if nodes and [node.node_id for node in nodes] != [node.node_id for node in run.nodes]:
            self._record(NodesPlanned(nodes=nodes))

    def _submit_and_follow(self, run: Run) -> PromptEnded:
        prompt_id = run.prompt_id or new_prompt_id()
        with ExitStack() as stack:
            subscription = stack.enter_context(self.link.feed.subscribe(prompt_id))
            submitter = Submitter(self.link, self._record, self.should_abort)
            accepted_id = submitter.ensure_submitted(run, prompt_id).prompt_id or prompt_id
            if accepted_id != prompt_id:  # a ComfyUI before 0.3.45 chooses the id
                subscription = stack.enter_context(self.link.feed.subscribe(accepted_id))
            follower = PromptFollower(self.link.client, self.link.feed, self.link.queue, accepted_id)
            canceller = Canceller(self.link.client, accepted_id)
            for item in follower.follow(subscription):
                match item:
                    case PromptEnded():
                        return item
                    case Event():
                        self._record(item)
                self._heed_requests(canceller)
        raise ComfyUIUnavailable("The prompt was lost from sight")

    def _stop_if_asked(self) -> None:
        if self.should_stop():
            raise Stopped("the server is stopping")

    def _heed_requests(self, canceller: Canceller) -> None:
        self._stop_if_asked()
        if self._run().is_cancel_requested:
            canceller.ask()

    def _vanished(self) -> None:
        """In neither queue nor history. After our cancel that is the confirmation; otherwise ComfyUI was
        restarted, or somebody else removed the prompt."""
        run = self._run()
        if run.is_cancel_requested:
            self._record(RunCancelled())
        elif self.link.is_same_boot(run.boot_marker):
            self._record(RunCancelled(message="The prompt was removed on the instance, not by this server"))
        elif run.status is not RunStatus.EXECUTING:
            self._record(
                PromptVanished(message="ComfyUI was restarted; the queued prompt is submitted again")
            )
        elif run.times_lost_running < self.options.resubmissions_of_running:
            self._record(
                PromptVanished(message="ComfyUI was restarted while the prompt ran; it is submitted again")
            )
        else:
            lost = "ComfyUI was restarted while the prompt ran, once more; it is not submitted again"
            self._record(RunFailed(code="prompt_lost", message=lost))

    def _conclude(self, entry: HistoryEntry) -> None:
        outputs = wanted_outputs(entry.outputs, self._run().request.include_previews)
        if entry.outcome is Outcome.SUCCESS:
            self._record(PromptSucceeded(outputs=outputs))
            self._fetch_outputs()
            self._complete()
            return
        if outputs:  # what was made before the end was paid for too
            self._record(OutputsFound(outputs=outputs))
            self._fetch_outputs()
        self._record(self._unsuccessful_end(entry))

    def _unsuccessful_end(self, entry: HistoryEntry) -> Event:
        if entry.outcome is Outcome.INTERRUPTED:
            is_ours = self._run().is_cancel_requested
            return RunCancelled(
                message=None if is_ours else "The prompt was interrupted on the instance, not by this server"
            )
        message = failure_sentence(entry, self._run())
        return RunFailed(code="prompt_failed", message=message, node_id=entry.failed_node_id)

    def _fetch_outputs(self) -> None:
        """One after the other; what cannot be fetched does not keep the others from coming."""
        run = self._run()
        fetcher = OutputFetcher(self.link, run, self._stop_if_asked)
        for position, output in enumerate(run.outputs, start=1):
            self._stop_if_asked()
            if not output.is_downloaded:
                self._say_fetching(f"Fetching {output.filename} ({position} of {len(run.outputs)})")
                self._record(OutputFetched(output=fetcher.fetch(output)))

    def _say_fetching(self, message: str) -> None:
        self._record(PhaseEntered(phase=Phase.DOWNLOADING, message=message))

    def _complete(self) -> None:
        missing = missing_sentence(self._run())
        if missing is None:
            self._record(RunCompleted())
        else:
            self._record(RunFailed(code="outputs_missing", message=missing))


def failure_sentence(entry: HistoryEntry, run: Run) -> str:
    """In the words of the native API, with what ComfyUI said and where."""
    said = " ".join((entry.error_message or "ComfyUI does not say why").split())
    if is_out_of_memory(entry):
        said = "Out of memory"
    node_type = run.node_type(entry.failed_node_id)
    where = f" (node {entry.failed_node_id}, {node_type})" if node_type else ""
    return f"Node execution failed: {said}{where}"


def is_out_of_memory(entry: HistoryEntry) -> bool:
    """Some forms of it come under other types, and only their text tells."""
    text = f"{entry.error_type} {entry.error_message}"
    signs = ("OutOfMemoryError", "out of memory", "Allocation on device", "MemoryError")
    return any(sign in text for sign in signs)
