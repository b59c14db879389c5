"""One attempt to execute a run on an open session: looks up the prompt in ComfyUI, continues from there, and
follows the run to its end."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

from comfyui_workflow.comfyui.cancel import Canceller
from comfyui_workflow.comfyui.duplicate_prompts import DuplicatePrompts, stop
from comfyui_workflow.comfyui.event_stream import Show, Subscription
from comfyui_workflow.comfyui.failures import comfyui_said, failure_sentence
from comfyui_workflow.comfyui.history import HistoryEntry, Outcome, merged
from comfyui_workflow.comfyui.messages import MessageReader
from comfyui_workflow.comfyui.previews import Preview
from comfyui_workflow.comfyui.prompt_lookup import find_successor
from comfyui_workflow.comfyui.prompt_tracker import PromptEnded, PromptFollower
from comfyui_workflow.concurrency import CancelToken, ParallelMap
from comfyui_workflow.errors import ComfyUIUnavailable, FileRefused, RecordDamaged, Stopped, StoreError
from comfyui_workflow.execution import sent_pictures
from comfyui_workflow.execution.inputs import upload_inputs
from comfyui_workflow.execution.late_copies import EXECUTED_TWICE, STOPPED
from comfyui_workflow.execution.left_files import (
    FOUND_BY_NAME,
    LeftFiles,
    find_left_files,
    no_record_sentence,
)
from comfyui_workflow.execution.live_progress import Direction, LiveRun
from comfyui_workflow.execution.outputs import (
    OutputFetcher,
    is_lost,
    missing_sentence,
    nodes_to_save_again,
    not_fetched_sentence,
    saved_again_sentence,
)
from comfyui_workflow.execution.preparations import Preparations
from comfyui_workflow.execution.prepare import prepared_graph, refuse_unless_it_runs, validate_on_instance
from comfyui_workflow.execution.results import ResultCollector
from comfyui_workflow.execution.sent_pictures import SentPictures
from comfyui_workflow.execution.submit import MAY_HAVE_RUN, RunSubmission, SubmissionContext, correlation_of
from comfyui_workflow.provisioning.models import ModelProvisioner
from comfyui_workflow.provisioning.packs import PackProvisioner
from comfyui_workflow.retry import Backoff
from comfyui_workflow.runs.events import (
    Event,
    ExecutedTwice,
    ExecutionEnded,
    GraphPrepared,
    NodesPlanned,
    NoticeAdded,
    OutputsFetched,
    OutputsFound,
    OutputsGone,
    PartnerNodesFound,
    PhaseEntered,
    PromptAccepted,
    PromptSucceeded,
    PromptVanished,
    RunCancelled,
    RunCompleted,
    RunFailed,
)
from comfyui_workflow.runs.model import (
    NOT_RESUBMITTED,
    LostParts,
    OutputFile,
    Phase,
    Run,
    RunStatus,
)
from comfyui_workflow.runs.nodes import planned_nodes
from comfyui_workflow.scheduling.executor import ExecutionContext
from comfyui_workflow.sessions.session import ComfyUISession, key_of
from comfyui_workflow.stores.journal import RunJournal
from comfyui_workflow.workflows.api_nodes import missing_key_findings, partner_nodes
from comfyui_workflow.workflows.graph import Graph, output_ids
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.overrides import inputs_named
from comfyui_workflow.workflows.resolve import left_out

CANCEL_GRACE_S = 2.0
"""Time in which a cancelled run may continue to download its outputs."""
LAST_PICTURE_S = 5.0
"""Time in which a picture may arrive over the websocket after the history has the end of its prompt."""


MOST_SUCCESSORS = 10_000
QUEUED_ITSELF = (
    "The workflow queued itself again on the instance: {} prompts ran one after the other, and their results "
    "were fetched together"
)


class FetchingCancelled(Stopped):
    """The run was cancelled, and the time for downloading its outputs is over."""


def has_advanced(before: Run, after: Run) -> bool:
    """True if the event was progress of the run. An event that only reports the current action of the server,
    such as to send the prompt again, is none."""
    unprogressed = replace(
        before,
        phase=after.phase,
        message=after.message,
        notices=after.notices,
        last_update=after.last_update,
        contact_lost_at=after.contact_lost_at,
        sent_by=after.sent_by,
        sent_at=after.sent_at,
        is_cancel_requested=after.is_cancel_requested,
        cancel_reason=after.cancel_reason,
        priority=after.priority,
    )
    return after is not before and unprogressed != after


@dataclass(frozen=True, kw_only=True)
class EndedPrompt:
    """A prompt that has ended. `entry` is None if it is in neither queue nor history."""

    entry: HistoryEntry | None
    was_waiting: bool = False
    """True if it was last seen in the queue, where it had not begun."""
    may_lack_pictures: bool = False
    """True if the websocket was not open during the whole execution."""


def _not_resubmitted_sentence(run: Run) -> str:
    node_id = run.partner_nodes[0]
    return (
        f"ComfyUI was restarted, and the prompt may have run. Node {node_id} ({run.node_type(node_id)}) "
        "costs credits of Comfy.org each time it executes, so the prompt is not submitted again: retry the "
        "run for that"
    )


def _joined(ended: PromptEnded, later: PromptEnded) -> PromptEnded:
    if ended.entry is None or later.entry is None:
        return later
    return replace(later, entry=merged(ended.entry, later.entry))


def _show(live: LiveRun, pictures: SentPictures, preview: Preview) -> None:
    live.show(preview)
    pictures.offer(preview)


@dataclass(frozen=True, kw_only=True)
class RunAttempt:
    """One attempt to execute a run on an open session."""

    journal: RunJournal
    session: ComfyUISession
    live: LiveRun
    run_id: str
    context: ExecutionContext
    backoff: Backoff
    abort: CancelToken
    """Cancels the waits before the prompt is accepted."""
    resubmissions_of_running: int
    stall_limit_s: float
    sender: SubmissionContext
    models: ModelProvisioner
    packs: PackProvisioner
    preparations: Preparations

    def execute(self) -> None:
        """Raises: Stopped; any error that ends the run or breaks the session."""
        try:
            self._execute()
        except FetchingCancelled:
            self._record(RunCancelled(message=not_fetched_sentence(self._run())))
        run = self._run()
        if run.is_finished:
            sent_pictures.discard(run)

    def _execute(self) -> None:
        run = self._run()
        if run.are_outputs_known:
            self._complete(self._fetch_outputs())
            return
        if not run.is_accepted:  # ComfyUI has validated an accepted prompt itself
            self.session.refuse_if_broken()
            self._await_preparation(run)
            run = self._prepare(run)
            self._plan_nodes(run)
        ended = self._submit_and_follow(run)
        if ended is None:
            self._record(RunCancelled())
        elif ended.entry is None:
            was_submitted_now = not run.is_accepted and self._run().is_accepted
            self._vanished(is_seen=ended.was_waiting or was_submitted_now)
        else:
            self._finish(ended.entry, may_lack_pictures=ended.may_lack_pictures)

    def _await_preparation(self, run: Run) -> None:
        """Waits until an instance that has just come up is prepared. A prompt that may be there already is
        followed at once."""
        if run.prompt_id is not None:
            return
        began_s = time.monotonic()
        self.preparations.wait(
            key_of(run),
            self.session,
            self.abort,
            lambda message: self._announce(Phase.WAITING, f"The instance is not ready yet: {message}"),
        )
        self.backoff.exclude(time.monotonic() - began_s)

    def _run(self) -> Run:
        return self.journal.get(self.run_id)

    def _record(self, event: Event) -> Run:
        """Records the event. Progress of the run resets the backoff."""
        before = self._run()
        after = self.journal.record(self.run_id, event)
        if has_advanced(before, after):
            self.backoff.reset()
        return after

    def _prepare(self, run: Run) -> Run:
        """Prepares the graph, once, and checks that the instance can run it before files are uploaded. After
        a prompt may have been submitted, the check is left to ComfyUI."""
        if run.prompt_id is not None:
            return run
        if run.request.provision:
            self._provide_packs(run)
        if run.prepared_graph is None:
            graph = prepared_graph(self.session, run.request)
            if graph is not run.graph:
                run = self._record(GraphPrepared(graph=graph))
        if run.request.provision:
            self._provide_models(run)
        given = inputs_named(run.graph, run.request.inputs)
        verdict = validate_on_instance(self.session, run.graph, run.input_files, given)
        refuse_unless_it_runs(verdict)
        for finding in verdict.findings:
            if finding.node_id is None:  # ComfyUI itself reports problems of nodes in a moment
                self._record(NoticeAdded(message=str(finding)))
        definitions = self.session.definitions()
        hints = left_out(run.request, definitions)
        if not run.request.has_comfy_org_api_key:
            hints += missing_key_findings(run.graph, definitions.object_info)
        for finding in hints:
            self._record(NoticeAdded(message=str(finding)))
        return self._run()

    def _provide_packs(self, run: Run) -> None:
        """Installs lacking node packs: without their classes, an editor file cannot be converted."""
        placed = self.packs.provide(
            self.session,
            run.request,
            stop=self.abort,
            say=lambda message: self._announce(Phase.PROVISIONING, message),
            alone=partial(self.preparations.gate.alone, self.session, self.abort),
        )
        for sentence in placed:
            self._record(NoticeAdded(message=sentence))

    def _provide_models(self, run: Run) -> None:
        """Downloads lacking models on the instance. A later attempt continues there, and finds what is
        complete."""
        transfer = partial(self.live.transfer, Direction.DOWNLOAD, stop=self.abort)
        placed = self.models.provide(
            self.session,
            run.graph,
            run.request,
            secrets=self.journal.url_secrets(run.run_id),
            stop=self.abort,
            say=lambda message: self._announce(Phase.PROVISIONING, message),
            transfer=transfer,
        )
        for sentence in placed:
            self._record(NoticeAdded(message=sentence))

    def _announce(self, phase: Phase, message: str) -> None:
        self._record(PhaseEntered(phase=phase, message=message))

    def _plan_nodes(self, run: Run) -> None:
        """Plans the nodes: the instance's node definitions tell which nodes are outputs."""
        outputs = output_ids(run.graph, self.session.definitions())
        nodes = planned_nodes(run.graph, outputs)
        if nodes and [node.node_id for node in nodes] != [node.node_id for node in run.nodes]:
            self._record(NodesPlanned(nodes=nodes))
        paid = partner_nodes(run.graph, self.session.definitions().object_info)
        if paid != run.partner_nodes:
            self._record(PartnerNodesFound(node_ids=paid))

    def _submit_and_follow(self, run: Run) -> EndedPrompt | None:
        """Returns None if the run was cancelled and its prompt never arrived."""
        prompt_id = self.sender.prompt_id_for(run)
        was_accepted = run.is_accepted
        run = self._run()
        if run.prompt_id is None:  # what an earlier prompt has sent is sent again
            sent_pictures.discard(run)
        pictures = SentPictures(run, self._output_nodes(run))
        show = partial(_show, self.live, pictures)
        with ExitStack() as stack:
            subscription = stack.enter_context(self.session.feed.subscribe(prompt_id, show))
            submitted = self._ensure_submitted(run, prompt_id, subscription)
            if submitted is None:
                return None if self._run().is_cancel_requested else EndedPrompt(entry=None)
            accepted_id = submitted.prompt_id or prompt_id
            if accepted_id != prompt_id:  # a ComfyUI before 0.3.45 chooses the id
                subscription = stack.enter_context(self.session.feed.subscribe(accepted_id, show))
            is_seen = not was_accepted and self.session.feed.wait_connected(0)
            connection = self.session.feed.times_connected
            copies = self._copies(submitted) if was_accepted or submitted.is_sent_again else None
            ended = self._follow(accepted_id, subscription, pictures, copies)
            ended = self._follow_successors(accepted_id, ended, show, pictures, was_accepted=was_accepted)
            is_seen = is_seen and self.session.feed.times_connected == connection
            return EndedPrompt(
                entry=ended.entry,
                was_waiting=ended.was_waiting,
                may_lack_pictures=not is_seen or pictures.has_dropped,
            )

    def _follow(
        self,
        prompt_id: str,
        subscription: Subscription,
        pictures: SentPictures,
        copies: DuplicatePrompts | None,
    ) -> PromptEnded:
        """Follows an accepted prompt to its end."""
        follower = PromptFollower(
            self.session.client,
            self.session.feed,
            self.session.queue,
            prompt_id,
            stall_limit_s=self.stall_limit_s,
            copies=copies,
            on_copy=self._note_copy,
            stop=self.context.stop,
        )
        canceller = Canceller(self.session.client, prompt_id)
        with (
            self.session.recording_broken_instance(),
            self.context.cancelled.on_cancel(subscription.wake),
        ):
            self._check_requests(canceller)  # requests that came during the submission
            for item in follower.follow(subscription):
                with suppress(StoreError):  # they stay collected until the end of the prompt
                    pictures.write()
                match item:
                    case PromptEnded():
                        self._await_pictures(item.entry, subscription, pictures)
                        return item
                    case Event():
                        self._record(item)
                        self.backoff.reset()  # any message about the prompt is progress
                self._check_requests(canceller)
        raise ComfyUIUnavailable("The prompt was lost from sight")

    def _follow_successors(
        self, prompt_id: str, first: PromptEnded, show: Show, pictures: SentPictures, *, was_accepted: bool
    ) -> PromptEnded:
        """Follows the prompts that a node has queued in place of its result, as nodes do that make a video in
        parts. Returns their end, with the results of all. Only a prompt without the result of an output node
        is looked for a successor."""
        ended, known = first, [prompt_id]
        while self._may_have_successor(ended.entry) and len(known) < MOST_SUCCESSORS:
            correlation = correlation_of(self._run())
            found = find_successor(self.session.client, correlation, known, is_thorough=was_accepted)
            if found is None:
                break
            known.append(found)
            with self.session.feed.subscribe(found, show) as subscription:
                later = self._follow(found, subscription, pictures, None)
            ended = _joined(ended, later)
        if ended.entry is not None and ended.entry.outcome is not Outcome.SUCCESS:
            self._stop_successors(known)
        if len(known) > 1:
            self._record(NoticeAdded(message=QUEUED_ITSELF.format(len(known))))
        return ended

    def _stop_successors(self, known: Sequence[str]) -> None:
        """A prompt that fails or is interrupted may have queued its successor before."""
        client, correlation = self.session.client, correlation_of(self._run())
        queue = client.queue()
        for prompt_id in queue.ids_of(correlation):
            if prompt_id not in known:
                stop(client, queue, prompt_id)

    def _may_have_successor(self, entry: HistoryEntry | None) -> bool:
        has_succeeded = entry is not None and entry.outcome is Outcome.SUCCESS
        return entry is not None and has_succeeded and self._collector(entry).has_silent_nodes()

    def _await_pictures(
        self, entry: HistoryEntry | None, subscription: Subscription, pictures: SentPictures
    ) -> None:
        """Waits for the pictures that may still be on their way, if the history does not have the results of
        every output node."""
        has_succeeded = entry is not None and entry.outcome is Outcome.SUCCESS
        is_listening = has_succeeded and self.session.feed.wait_connected(0)
        if entry is not None and is_listening and self._collector(entry).has_silent_nodes():
            subscription.wait_ended(LAST_PICTURE_S)
        pictures.write()

    def _output_nodes(self, run: Run) -> list[str]:
        """Returns the output nodes of the run that ComfyUI executes."""
        planned = {node.node_id for node in run.nodes}
        found = output_ids(run.graph, self.session.known_definitions or self.session.definitions())
        return [node_id for node_id in found if node_id in planned]

    def _collector(self, entry: HistoryEntry, *, may_lack_pictures: bool = False) -> ResultCollector:
        run = self._run()
        nodes = self._output_nodes(run)
        sent = tuple(sent_pictures.sent_outputs(run, nodes))
        return ResultCollector(self.session, run, entry, nodes, sent, may_lack_pictures=may_lack_pictures)

    def _note_copy(self) -> None:
        self._record(ExecutedTwice(message=EXECUTED_TWICE.format(STOPPED)))

    def _ensure_submitted(self, run: Run, prompt_id: str, subscription: Subscription) -> Run | None:
        submitter = RunSubmission(
            session=self.session,
            record=self._record,
            stop=self.abort,
            slot=self._slot,
            live=self.live,
            sender=self.sender,
            api_key=self._api_key,
            is_cancelled=lambda: self._run().is_cancel_requested,
            has_left_files=lambda: bool(self._find_left_files(self._run()).outputs),
            run=run,
            prompt_id=prompt_id,
        )
        try:
            return submitter.ensure_submitted()
        except ComfyUIUnavailable:
            self._record_received_messages(prompt_id, subscription)
            raise

    def _record_received_messages(self, prompt_id: str, subscription: Subscription) -> None:
        """Records messages that arrived for the prompt. If the response to the submission is missing, such a
        message also proves that ComfyUI has the prompt."""
        messages = subscription.take(0) if self._run().prompt_id == prompt_id else []
        if not messages:
            return
        self._record(PromptAccepted(prompt_id=prompt_id))
        reader = MessageReader()
        for event in (event for message in messages for event in reader.events(message)):
            self._record(event)

    def _copies(self, run: Run) -> DuplicatePrompts:
        correlation = None if self.sender.has_our_id(run) else correlation_of(run)
        return DuplicatePrompts(self.session.client, run.prompt_id or "", correlation)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Holds the submission slot. The time spent waiting for it does not count as failing time."""
        began_s = time.monotonic()
        classes = self._save_classes(self.session.definitions())
        may_overwrite = any(not self.session.saved_names.is_numbering(each) for each in classes)
        with (
            self.context.submission_slot(self.abort, may_overwrite=may_overwrite),
            self.preparations.gate.submitting(self.session, self.abort),
        ):
            self.backoff.exclude(time.monotonic() - began_s)
            yield

    def _save_classes(self, definitions: Definitions | None) -> set[str]:
        """Returns the classes of the output nodes."""
        graph = self._run().graph
        outputs = output_ids(graph, definitions) if definitions else ()
        return {graph[node_id]["class_type"] for node_id in outputs}

    def _learn_names(self, prompt_id: str, outputs: Sequence[OutputFile]) -> None:
        """Learns how node classes name their files. Cached outputs are skipped: the earlier prompt that made
        them was counted."""
        graph = self._run().graph
        by_class: dict[str, list[OutputFile]] = {
            each: [] for each in self._save_classes(self.session.known_definitions)
        }
        for output in outputs:
            class_type = graph[output.node_id]["class_type"] if output.node_id in graph else None
            if output.text is None and class_type in by_class:
                by_class[class_type].append(output)
        for class_type, saved in by_class.items():
            if not any(output.is_cached for output in saved):
                names = [output.key for output in saved]
                self.session.saved_names.learn(class_type, prompt_id, names)

    def _api_key(self) -> str | None:
        return self.journal.api_key(self.run_id)

    def _check_requests(self, canceller: Canceller) -> None:
        self.context.stop.check()
        if self._run().is_cancel_requested:
            canceller.ask()

    def _vanished(self, *, is_seen: bool) -> None:
        """Handles a prompt that is in neither queue nor history. After a cancel request this confirms the
        cancellation. Otherwise ComfyUI was restarted, another user removed the prompt, or the history was
        cleared. `is_seen`: this attempt submitted the prompt, or saw it in the queue."""
        run = self._run()
        if run.is_cancel_requested:
            self._record(RunCancelled())
            return
        if LostParts.STATE in run.lost:
            raise RecordDamaged(MAY_HAVE_RUN)
        is_same_boot = self.session.is_same_boot(run.boot_marker)
        if is_same_boot and is_seen and run.status is RunStatus.QUEUED:
            self._record(RunCancelled(message="The prompt was removed on the instance, not by this server"))
            return
        left = self._find_left_files(run)
        if left.is_complete or (left.outputs and is_same_boot):
            self._take(left)
        elif is_same_boot:
            self._record(RunFailed(code="prompt_lost", message=no_record_sentence(left)))
        else:
            self._lost_by_restart(run)

    def _find_left_files(self, run: Run) -> LeftFiles:
        """Searches for the files of a prompt. Its input files are uploaded once more if they are gone: that
        tells their names."""
        sent: Graph | None = run.graph
        try:
            sent = upload_inputs(
                self.session,
                run.graph,
                run.input_files,
                run.comfyui_input_dir,
                say=lambda _: None,
                stop=self.context.stop,
                live=self.live,
            )
        except FileRefused:
            sent = None
        return find_left_files(self.session, run, sent)

    def _take(self, left: LeftFiles) -> None:
        """Takes files that a prompt left which ComfyUI has no record of."""
        self._record(ExecutionEnded(execution_s=None))
        self.context.release_slot()
        if left.is_complete:
            self._record(NoticeAdded(message=FOUND_BY_NAME))
            self._record(PromptSucceeded(outputs=left.outputs))
            self._complete(self._fetch_outputs())
            return
        self._record(OutputsFound(outputs=left.outputs))
        with suppress(FetchingCancelled):
            self._fetch_outputs()
        self._record(RunFailed(code="prompt_lost", message=no_record_sentence(left)))

    def _lost_by_restart(self, run: Run) -> None:
        if run.partner_nodes:
            self._record(RunFailed(code=NOT_RESUBMITTED, message=_not_resubmitted_sentence(run)))
        elif not run.is_accepted:
            self._restarted_before_response(run)
        elif run.status is not RunStatus.EXECUTING:
            self._record(
                PromptVanished(message="ComfyUI was restarted; the queued prompt is submitted again")
            )
        elif run.times_lost_running < self.resubmissions_of_running:
            self._record(
                PromptVanished(message="ComfyUI was restarted while the prompt ran; it is submitted again")
            )
        else:
            lost = "ComfyUI was restarted while the prompt ran, once more; it is not submitted again"
            self._record(RunFailed(code="prompt_lost", message=lost))

    def _restarted_before_response(self, run: Run) -> None:
        """Handles a prompt that was sent without a response before ComfyUI was restarted: ComfyUI may have
        executed it before the restart."""
        if self.resubmissions_of_running:
            message = "ComfyUI was restarted before it said whether it had the prompt; it is submitted again"
            self._record(PromptVanished(message=message))
        else:
            lost = "ComfyUI was restarted before it said whether it had the prompt, which may have run"
            self._record(RunFailed(code="prompt_lost", message=lost))

    def _finish(self, entry: HistoryEntry, *, may_lack_pictures: bool) -> None:
        if self._run().is_sent_again:
            self.sender.expect_copies(self._run())
        self._record(ExecutionEnded(execution_s=entry.execution_s, began_at=entry.execution_began_at))
        self.context.release_slot()
        results = self._collector(entry, may_lack_pictures=may_lack_pictures).collect()
        outputs = results.outputs
        for notice in results.notices:
            self._record(NoticeAdded(message=notice))
        if entry.outcome is Outcome.SUCCESS:
            self._learn_names(entry.prompt_id, outputs)
            self._record(PromptSucceeded(outputs=outputs))
            self._complete(self._fetch_outputs())
            return
        if outputs:  # files that were made before the end are paid for too
            self._record(OutputsFound(outputs=outputs))
            with suppress(FetchingCancelled):
                self._fetch_outputs()
        self._record(self._unsuccessful_end(entry))

    def _unsuccessful_end(self, entry: HistoryEntry) -> Event:
        if entry.outcome is Outcome.INTERRUPTED:
            is_ours = self._run().is_cancel_requested
            return RunCancelled(
                message=None if is_ours else "The prompt was interrupted on the instance, not by this server"
            )
        return RunFailed(
            code="prompt_failed",
            message=failure_sentence(
                entry,
                self._run().node_type(entry.failed_node_id),
                has_editor_file=self._run().request.workflow.editor_file is not None,
            ),
            node_id=entry.failed_node_id,
            comfyui_said=comfyui_said(entry),
        )

    def _fetch_outputs(self) -> Sequence[OutputFile]:
        """Downloads several outputs at a time and records them in order. An output that cannot be downloaded
        does not stop the others. Outputs that arrive together are flushed to disk together, before they are
        recorded. Returns the outputs of ComfyUI's cache whose files are gone. Raises: FetchingCancelled,
        `CANCEL_GRACE_S` after the cancel request, whatever the instance does."""
        with self._fetching() as stop:
            stop.check()
            return self._fetch_missing(stop)

    def _fetch_missing(self, stop: CancelToken) -> Sequence[OutputFile]:
        run = self._run()
        missing = [each for each in enumerate(run.outputs, start=1) if not each[1].is_downloaded]
        downloads = ParallelMap(self.session.connection.files.transfers_at_once, stop)
        fetcher = OutputFetcher(self.session, run, downloads.stop, self.live)
        with downloads.groups(fetcher.fetch, [output for _, output in missing]) as groups:
            while missing:
                position, output = missing[0]
                self._report_fetching(f"Fetching {output.filename} ({position} of {len(run.outputs)})")
                fetched = next(groups)
                fetcher.bring_to_disk(fetched)
                self._record(OutputsFetched(outputs=tuple(fetched)))
                del missing[: len(fetched)]
                stop.check()
        return fetcher.gone

    @contextmanager
    def _fetching(self) -> Iterator[CancelToken]:
        """Yields the token of the downloads. It is cancelled `CANCEL_GRACE_S` after the run. Small files
        still arrive in that time: if all outputs arrive before that, the run is completed."""
        stop = CancelToken(self.context.stop)
        end = FetchingCancelled("cancelled while the outputs were fetched")
        grace = threading.Timer(CANCEL_GRACE_S, stop.cancel, [end])
        grace.daemon = True
        with self.context.cancelled.on_cancel(grace.start):
            try:
                yield stop
            finally:
                grace.cancel()

    def _complete_or_upload(self, run: Run) -> None:
        if run.is_uploading:  # that does not need this session
            self.backoff.reset()
        else:
            self._record(RunCompleted())

    def _report_fetching(self, message: str) -> None:
        self._announce(Phase.DOWNLOADING, message)

    def _complete(self, gone: Sequence[OutputFile]) -> None:
        """Ends the run. If files of ComfyUI's cache are gone, the prompt is submitted once more instead."""
        run = self._run()
        missing, node_ids = missing_sentence(run), nodes_to_save_again(run, gone)
        if node_ids:
            self._record(OutputsGone(node_ids=node_ids, message=saved_again_sentence(gone)))
        elif missing is None:
            sent_pictures.discard(run)
            self._complete_or_upload(run)
        else:
            code = "outputs_lost" if is_lost(self._run()) else "outputs_missing"
            self._record(RunFailed(code=code, message=missing))
