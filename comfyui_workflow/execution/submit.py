"""Submits the prompt of a run: implements the `PromptSender` of `comfyui.submit` for runs.

How it works.

- Each step is recorded in the journal before it is taken, so that a restart after a crash continues from
  there.
- The prompt id is derived from the name of this server, the run and the number of the submission. After a
  restart, ComfyUI is asked once for this id before the prompt is sent, because the record of an earlier
  submission may be lost.
- A prompt that arrives after the run has ended is a copy, and is removed: see `late_copies`.
- Each prompt carries the server process that sent it: see `prompt_marks`.
"""

import random
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from comfyui_workflow.comfyui.client import Submission, answer_or_default
from comfyui_workflow.comfyui.duplicate_prompts import stop
from comfyui_workflow.comfyui.prompt_lookup import (
    FoundPrompt,
    derived_prompt_id,
    find_mark_of_run,
    find_prompt,
)
from comfyui_workflow.comfyui.queue import CORRELATION_KEY, SENDER_KEY
from comfyui_workflow.comfyui.submit import IN_DOUBT_S, PromptKey, PromptSender, poll_until_found, submit_once
from comfyui_workflow.comfyui.tracebacks import request_failure
from comfyui_workflow.comfyui.validation_errors import dropped_outputs, is_about, node_findings
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import (
    ApiKeyGone,
    ComfyUIUnavailable,
    PromptCrashed,
    PromptRefused,
    RecordDamaged,
)
from comfyui_workflow.execution.inputs import upload_inputs
from comfyui_workflow.execution.live_progress import LiveRun
from comfyui_workflow.execution.prepare import WITHOUT_OUTPUT
from comfyui_workflow.parsing.untrusted import shown
from comfyui_workflow.runs.events import (
    Event,
    NodesPlanned,
    NoticeAdded,
    PhaseEntered,
    PromptAccepted,
    PromptFound,
    PromptPrepared,
    PromptSentAgain,
    PromptVanished,
)
from comfyui_workflow.runs.model import LostParts, Phase, Run
from comfyui_workflow.runs.nodes import planned_nodes
from comfyui_workflow.sessions.session import ComfyUISession
from comfyui_workflow.stores.journal import now
from comfyui_workflow.workflows.api_nodes import nodes_that_need_a_key
from comfyui_workflow.workflows.graph import Graph, output_ids, with_titles
from comfyui_workflow.workflows.overrides import inputs_named
from comfyui_workflow.workflows.saved_files import saved_again

FEED_WAIT_S = 2.0
MAY_HAVE_RUN = (
    "The record of the run was damaged on this machine, and the instance knows no prompt of it: it may have "
    "run already, so it is not submitted again. Execute it again if its outputs are missing"
)
_NOTHING_TO_SUBMIT = (
    "The workflow of the run was damaged on this machine, and the instance knows no prompt of it. "
    "Execute it again"
)
_PREPARED_AGAIN = "The prepared graph of the run was damaged on this machine; it is prepared again"
LONG_AGO_S = 600.0
MOST_CRASHES = 3
"""A prompt is sent so many times to a ComfyUI that fails with HTTP 500: a proxy before it may recover."""
OTHER_SERVER_SHOWS_WITHIN_S = (4.0, 7.0)
"""Maximum time that another server on a copy of our data needs to submit its next prompt after a run that
both servers follow has ended: it polls every two seconds. Random, so that two servers do not act at the same
time."""


@dataclass(frozen=True, kw_only=True)
class SubmissionContext:
    """Data that all submissions of one server process share."""

    server: Callable[[], uuid.UUID] = uuid.uuid4
    """Returns the name of the server, which does not change over restarts. Raises: StoreError."""
    process: str = ""
    """The token of this process."""
    check_data: Callable[[], None] = lambda: None
    """Raises: DataTaken if another server works on the data."""
    is_resumed: Callable[[str], bool] = lambda _: False
    """Tells whether the run existed before this process."""
    has_seen_other: Callable[[], bool] = lambda: False
    """Tells whether a prompt of ours was seen that an earlier process had sent."""
    in_doubt_s: float = IN_DOUBT_S
    preview_method: str = "auto"
    """The kind of preview pictures, for a ComfyUI that takes it with each prompt (0.8 and newer)."""
    began_s: float = field(default_factory=time.monotonic)
    expect_copies: Callable[[Run], None] = lambda _: None
    """Called when a prompt that may still arrive at the run's instance is no longer wanted there."""

    def prompt_id_for(self, run: Run) -> str:
        """The id of the current prompt, or of the next one. Raises: StoreError."""
        return run.prompt_id or derived_prompt_id(self.server(), _correlation(run, run.submissions + 1))

    def has_our_id(self, run: Run) -> bool:
        """True if ComfyUI runs the prompt under the id that it was sent with. Raises: StoreError."""
        return run.prompt_id == derived_prompt_id(self.server(), correlation_of(run))

    def in_doubt_for_s(self, run: Run) -> float:
        """Returns the remaining seconds in which the prompt may appear in ComfyUI. 0 if it was sent more than
        `LONG_AGO_S` ago. An earlier process may have sent it until that process ended, so for its prompts the
        time counts from the start of this process. The wall clock may have been set meanwhile: a negative age
        counts as zero."""
        since_s = 0.0 if run.sent_at is None else (now() - run.sent_at).total_seconds()
        if since_s > LONG_AGO_S:
            return 0.0
        if self.process not in run.sent_by[-1:]:
            return self.in_doubt_s - (time.monotonic() - self.began_s)
        return self.in_doubt_s - max(0.0, since_s)


class RunSubmission(PromptSender):
    """Submits the prompt of one run over one open session."""

    def __init__(
        self,
        *,
        session: ComfyUISession,
        record: Callable[[Event], Run],
        stop: CancelToken,
        slot: Callable[[], AbstractContextManager[None]],
        live: LiveRun,
        sender: SubmissionContext,
        is_cancelled: Callable[[], bool],
        run: Run,
        prompt_id: str,
        api_key: Callable[[], str | None] = lambda: None,
        has_left_files: Callable[[], bool] = lambda: False,
    ) -> None:
        """`prompt_id` is the id of the next prompt. `api_key` returns the Comfy.org key of the run, if it is
        still stored. `has_left_files` tells whether the instance has files of the prompt."""
        self._has_left_files = has_left_files
        self._api_key = api_key
        self._is_cancelled = is_cancelled
        self._session = session
        self._journal_record = record
        self._sender = sender
        self._stop = stop
        self._slot = slot
        self._live = live
        self._run = run
        self._graph = run.graph
        self._prompt_id = prompt_id

    def ensure_submitted(self) -> Run | None:
        """Returns the run with its prompt accepted, submitted now or earlier. Returns None if ComfyUI does
        not have the prompt, and the run was cancelled, or ComfyUI was restarted or the prompt ran after it
        was sent.
        Raises: PromptRefused; Stopped; the error of a broken session. After such an error it may be called
        again."""
        if self._run.is_accepted:
            return self._run
        submission = submit_once(self._session.client, self, self._stop)
        return None if submission is None else self._run

    # PromptSender

    @property
    def sent(self) -> PromptKey | None:
        if self._run.prompt_id is None:
            return None
        return PromptKey(prompt_id=self._run.prompt_id, correlation=correlation_of(self._run))

    def in_doubt_for_s(self) -> float:
        return self._sender.in_doubt_for_s(self._run)

    def may_be_sent_again(self) -> bool:
        if not (self._is_cancelled() or self._is_restarted_since() or self._has_run()):
            return True
        self._sender.expect_copies(self._run)
        return False

    def prepare(self) -> FoundPrompt | None:
        found = self._find_after_damage() if self._run.lost else None
        if found is None:
            self._refuse_without_key()
            self._graph = self._upload()
        return found

    def slot(self) -> AbstractContextManager[None]:
        return self._slot()

    def find_unrecorded(self) -> FoundPrompt | None:
        """The prompt that ComfyUI has although our data does not contain it: a power cut can destroy the
        record of a submission."""
        run = self._run
        if not self._sender.is_resumed(run.run_id):
            return None
        if self._sender.has_seen_other() and self._session.is_first_after_start():
            self._stop.wait(random.uniform(*OTHER_SERVER_SHOWS_WITHIN_S))  # noqa: S311 - guards nothing
            self._stop.check()
        correlation = _correlation(run, run.submissions + 1)
        known = find_prompt(self._session.client, self._prompt_id, correlation, is_thorough=False)
        if known is not None:
            process = (known.mark.process if known.mark else None) or ""
            self._record_prepared(known.prompt_id, process)
        return known

    def note_sending(self) -> None:
        if self._run.prompt_id is None:
            self._record_prepared(self._prompt_id, self._sender.process)
        else:
            self._record(PromptSentAgain(process=self._sender.process))

    def send(self) -> Submission:
        """Connects the websocket first, if possible: messages that are sent before are not repeated."""
        self._session.feed.wait_connected(FEED_WAIT_S)
        self._sender.check_data()
        try:
            return self._submit()
        except PromptCrashed as error:
            raise self._explained(error) from error

    def _explained(self, crash: PromptCrashed) -> PromptCrashed:
        """Adds the reason, if the log of ComfyUI has it."""
        reason = request_failure(answer_or_default(self._session.client.log, ""))
        explained = PromptCrashed(f"{crash}: {shown(reason)}" if reason else str(crash))
        explained.is_transient = len(self._run.sent_by) < MOST_CRASHES
        return explained

    def _submit(self) -> Submission:
        return self._session.client.submit(
            with_titles(saved_again(self._graph, self._run.saved_again, correlation_of(self._run))),
            prompt_id=self._run.prompt_id or "",
            client_id=self._session.feed.client_id,
            extra_data={
                **extra_data_of(self._run, self._sender.process, self._api_key()),
                "preview_method": self._sender.preview_method,
            },
            definitions=lambda: self._session.definitions().object_info,
        )

    def accepted(self, submission: Submission) -> None:
        if submission.node_errors:
            self._refuse_dropped(submission)
            self._report_dropped(submission.node_errors)
        self._record(PromptAccepted(prompt_id=submission.prompt_id))

    # the run

    def _record(self, event: Event) -> None:
        self._run = self._journal_record(event)

    def _record_prepared(self, prompt_id: str, process: str) -> None:
        marker = self._session.boot_marker()
        self._record(PromptPrepared(prompt_id=prompt_id, boot_marker=marker, process=process))

    def _is_restarted_since(self) -> bool:
        """True if ComfyUI was restarted after the prompt was sent: it may have executed the prompt before,
        and forgotten it. False if that is not known."""
        marker = self._run.boot_marker
        return marker is not None and not self._session.is_same_boot(marker)

    def _has_run(self) -> bool:
        """True if an earlier process sent the prompt, and files of it are there: then somebody has cleared
        the history."""
        is_sent_by_other = self._sender.process not in self._run.sent_by[-1:]
        return is_sent_by_other and self._has_left_files()

    def _find_after_damage(self) -> FoundPrompt | None:
        """Called if ComfyUI has no prompt with the run's own id. Returns another prompt of the run that the
        instance has; None if a prompt may be submitted. Raises: RecordDamaged if none may be submitted;
        ComfyUIUnavailable to start again, so that the graph is prepared again."""
        run = self._run
        if run.prompt_id is None and run.lost & {LostParts.STATE, LostParts.PROGRESS}:
            mark = poll_until_found(
                lambda: find_mark_of_run(self._session.client, run.run_id), self.in_doubt_for_s(), self._stop
            )
            if mark is not None:
                self._record(PromptFound(prompt_id=mark.prompt_id, submissions=mark.submission or 1))
                return FoundPrompt(prompt_id=mark.prompt_id, mark=mark)
        if LostParts.STATE in run.lost:
            raise RecordDamaged(MAY_HAVE_RUN)
        if not run.graph:
            raise RecordDamaged(_NOTHING_TO_SUBMIT)
        if LostParts.GRAPH in run.lost and run.prompt_id is not None:
            self._record(PromptVanished(message=_PREPARED_AGAIN))
            raise ComfyUIUnavailable(_PREPARED_AGAIN)
        return None

    def _upload(self) -> Graph:
        run = self._run
        return upload_inputs(
            self._session,
            run.graph,
            run.input_files,
            run.comfyui_input_dir,
            say=lambda message: self._announce(Phase.UPLOADING, message),
            stop=self._stop,
            live=self._live,
        )

    def _announce(self, phase: Phase, message: str) -> None:
        self._stop.check()
        self._record(PhaseEntered(phase=phase, message=message))

    def _refuse_without_key(self) -> None:
        """The key of a run is deleted when its prompt is accepted. Raises: ApiKeyGone."""
        run = self._run
        if not run.request.has_comfy_org_api_key or self._api_key() is not None:
            return
        needing = nodes_that_need_a_key(run.graph, self._session.definitions().object_info)
        if needing:
            raise ApiKeyGone(
                "The prompt cannot be submitted again: the API key of Comfy.org that came with it is not "
                f"stored after ComfyUI has accepted it, and node {needing[0]} needs it. Execute the run "
                "again, with the key"
            )

    def _refuse_dropped(self, submission: Submission) -> None:
        """Stops the prompt if ComfyUI drops outputs because of a value that the request sets: the person who
        set it expects those outputs. Raises: PromptRefused."""
        given = inputs_named(self._graph, self._run.request.inputs)
        if not is_about(submission.node_errors, given):
            return
        client = self._session.client
        stop(client, client.queue(), submission.prompt_id)
        self._sender.expect_copies(self._run)
        found = node_findings(submission.node_errors, self._graph, self._session.definitions().object_info)
        raise PromptRefused(f"{WITHOUT_OUTPUT}: {'; '.join(found)}")

    def _report_dropped(self, node_errors: Mapping[str, Any]) -> None:
        """ComfyUI drops outputs that fail validation. Nodes that only these outputs need do not execute."""
        graph, definitions = self._graph, self._session.definitions()
        findings = "; ".join(node_findings(node_errors, graph, definitions.object_info))
        kept = [
            node_id
            for node_id in output_ids(graph, definitions)
            if node_id not in dropped_outputs(node_errors)
        ]
        self._record(NodesPlanned(nodes=planned_nodes(graph, kept)))
        self._record(
            NoticeAdded(
                message=f"ComfyUI leaves out some outputs of the workflow and runs the rest: {findings}"
            )
        )


def extra_data_of(run: Run, process: str, api_key: str | None = None) -> dict[str, Any]:
    """Extra data of the prompt, which ComfyUI stores unchanged. Its nodes write `extra_pnginfo` into the
    pictures they save."""
    editor_file, data = run.request.workflow.editor_file, dict[str, Any]()
    data[CORRELATION_KEY] = correlation_of(run)
    data[SENDER_KEY] = {"process": process, "sent_at": time.time()}
    if editor_file is not None:
        data["extra_pnginfo"] = {"workflow": editor_file}
    if api_key is not None:
        data["api_key_comfy_org"] = api_key
    return data


def correlation_of(run: Run) -> str:
    return _correlation(run, run.submissions)


def _correlation(run: Run, submission: int) -> str:
    return f"{run.run_id}/{submission}"
