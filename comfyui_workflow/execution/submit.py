"""Getting a prompt into ComfyUI's queue exactly once.

ComfyUI runs the same id twice when it is sent twice, and a broken connection does not tell whether a prompt
arrived. So the id is ours and on disk before it is sent, and whenever the answer is missing we ask for that
id before we send it again:

- The id is derived from the name of this server, the run and the number of the submission. After a start it
  is looked for once before it is sent, should the record of an earlier submission have been lost.
- A prompt that was sent without an answer may be in the network, in the SSH server of the instance or under
  ComfyUI's validation. It is looked for until `in_doubt_s` after it was sent before it is sent again.
- What arrives still later is a copy, which is dropped: see `late_copies`.
- Each prompt carries the server process that sent it: see `prompt_marks`.
"""

import random
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from comfyui_workflow.comfyui.prompt_lookup import (
    LOOK_AGAIN_AFTER_S,
    FoundPrompt,
    derived_prompt_id,
    drop_copies,
    find_mark_of_run,
    find_prompt,
)
from comfyui_workflow.comfyui.queue import CORRELATION_KEY, SENDER_KEY
from comfyui_workflow.comfyui.validation_errors import dropped_outputs, node_findings
from comfyui_workflow.errors import ApiKeyGone, ComfyUIUnavailable, RecordDamaged, Stopped
from comfyui_workflow.execution.inputs import upload_inputs
from comfyui_workflow.execution.live_progress import LiveRun
from comfyui_workflow.retry import wait
from comfyui_workflow.runs.events import (
    Event,
    NodesPlanned,
    NoticeGiven,
    PhaseEntered,
    PromptAccepted,
    PromptFound,
    PromptPrepared,
    PromptSentAgain,
    PromptVanished,
)
from comfyui_workflow.runs.model import Lost, Phase, Run
from comfyui_workflow.runs.nodes import planned_nodes
from comfyui_workflow.sessions.session import Link
from comfyui_workflow.stores.journal import now
from comfyui_workflow.workflows.api_nodes import nodes_that_need_a_key
from comfyui_workflow.workflows.graph import Graph, output_ids

T = TypeVar("T")

FEED_WAIT_S = 2.0
MAY_HAVE_RUN = (
    "The record of the run was damaged on this machine, and the instance knows no prompt of it: it may have "
    "run already, so it is not submitted again. Execute it anew if its outputs are missing"
)
_NOTHING_TO_SUBMIT = (
    "The workflow of the run was damaged on this machine, and the instance knows no prompt of it. "
    "Execute it anew"
)
_PREPARED_ANEW = "The prepared graph of the run was damaged on this machine; it is prepared anew"
LONG_AGO_S = 600.0
OTHER_SERVER_SHOWS_WITHIN_S = (4.0, 7.0)
"""How long another server on a copy of our data takes at most to submit its next prompt, when one of those
that both follow has ended: it looks every two seconds. Random, so that two servers do not keep in step."""


@dataclass(frozen=True, kw_only=True)
class Sender:
    """What the submissions of one server process have in common."""

    server: Callable[[], uuid.UUID] = uuid.uuid4
    """The name of the server, which stays over restarts. Raises: StoreError."""
    process: str = ""
    """The token of this process."""
    check_data: Callable[[], None] = lambda: None
    """Raises: DataTaken, when another server works on the data."""
    is_taken_up: Callable[[str], bool] = lambda _: False
    """Whether the run was there before this process."""
    has_seen_other: Callable[[], bool] = lambda: False
    """Whether a prompt of ours was seen that an earlier process had sent."""
    in_doubt_s: float = 10.0
    """How long a prompt that was sent without an answer may take to turn up. ComfyUI takes seconds to
    validate a large graph."""
    began_s: float = field(default_factory=time.monotonic)
    expect_copies: Callable[[Run], None] = lambda _: None
    """Called when a prompt that may still arrive at the run's instance is not wanted there any more."""

    def prompt_id_for(self, run: Run) -> str:
        """The id of its prompt, or of the next one. Raises: StoreError."""
        return run.prompt_id or derived_prompt_id(self.server(), _correlation(run, run.submissions + 1))

    def in_doubt_for_s(self, run: Run) -> float:
        """How much longer its prompt may take to turn up. One that an earlier process sent may have left that
        until it ended, which was before this one began. A clock that was set meanwhile is not trusted."""
        since_s = 0.0 if run.sent_at is None else (now() - run.sent_at).total_seconds()
        if since_s > LONG_AGO_S:
            return 0.0
        if self.process not in run.sent_by[-1:]:
            return self.in_doubt_s - (time.monotonic() - self.began_s)
        return self.in_doubt_s - max(0.0, since_s)


class Submitter:
    def __init__(
        self,
        *,
        link: Link,
        record: Callable[[Event], Run],
        should_stop: Callable[[], bool],
        place: Callable[[], AbstractContextManager[None]],
        live: LiveRun,
        sender: Sender,
        is_cancelled: Callable[[], bool],
        api_key: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`api_key` tells that of Comfy.org, where the run has one that is still kept."""
        self._api_key = api_key
        self._is_cancelled = is_cancelled
        self._link = link
        self._record = record
        self._sender = sender
        self._should_stop = should_stop
        self._place = place
        self._live = live

    def ensure_submitted(self, run: Run, prompt_id: str) -> Run | None:
        """The run with its prompt accepted, submitted now if it was not before; None when ComfyUI has not got
        it and it was cancelled, or ComfyUI was restarted since it was sent.
        Raises: PromptRefused; Stopped; what the link raises when it breaks, to be called again then."""
        if run.is_accepted:
            return run
        if run.prompt_id is not None:
            known = self._find(run)
            if known is not None:
                return self._record(PromptAccepted(prompt_id=known.prompt_id))
            if self._is_cancelled() or self._is_restarted_since(run):
                self._sender.expect_copies(run)
                return None
        if run.lost:
            found = self._after_damage(run)
            if found is not None:
                return found
        self._refuse_without_key(run)
        graph = self._upload(run)
        self._stop_if_asked()
        if run.prompt_id is None:
            with self._place():
                self._stop_if_asked()
                return self._adopt(run, prompt_id) or self._submit(run, prompt_id, graph)
        run = self._post(self._record(PromptSentAgain(process=self._sender.process)), graph)
        drop_copies(self._link.client, run.prompt_id or "")
        return run

    def _submit(self, run: Run, prompt_id: str, graph: Graph) -> Run:
        run = self._record(
            PromptPrepared(
                prompt_id=prompt_id,
                boot_marker=self._link.boot_marker(),
                process=self._sender.process,
            )
        )
        return self._post(run, graph)

    def _adopt(self, run: Run, prompt_id: str) -> Run | None:
        """The run with the prompt that ComfyUI has already, though our data do not know of it: a power cut
        can take the record of a submission. None where there is no such prompt."""
        if not self._sender.is_taken_up(run.run_id):
            return None
        if self._sender.has_seen_other() and self._link.is_first_after_start():
            wait(random.uniform(*OTHER_SERVER_SHOWS_WITHIN_S), self._should_stop)  # noqa: S311 - guards nothing
            self._stop_if_asked()
        correlation = _correlation(run, run.submissions + 1)
        known = find_prompt(self._link.client, prompt_id, correlation, is_thorough=False)
        if known is None:
            return None
        process = (known.mark.process if known.mark else None) or ""
        marker = self._link.boot_marker()
        self._record(PromptPrepared(prompt_id=known.prompt_id, boot_marker=marker, process=process))
        return self._record(PromptAccepted(prompt_id=known.prompt_id))

    def _is_restarted_since(self, run: Run) -> bool:
        """Whether ComfyUI was restarted after the prompt was sent: it may have run it before, and has
        forgotten that. False where it is not known."""
        return run.boot_marker is not None and not self._link.is_same_boot(run.boot_marker)

    def _after_damage(self, run: Run) -> Run | None:
        """The run with the prompt that the instance has of it; None where one may be submitted. The prompt by
        its own id is not there. Raises: RecordDamaged where none may be; ComfyUIUnavailable, to begin again
        with the graph, which is to be prepared anew."""
        if run.prompt_id is None and run.lost & {Lost.STATE, Lost.PROGRESS}:
            mark = self._look(lambda: find_mark_of_run(self._link.client, run.run_id), run)
            if mark is not None:
                return self._record(PromptFound(prompt_id=mark.prompt_id, submissions=mark.submission or 1))
        if Lost.STATE in run.lost:
            raise RecordDamaged(MAY_HAVE_RUN)
        if not run.graph:
            raise RecordDamaged(_NOTHING_TO_SUBMIT)
        if Lost.GRAPH in run.lost and run.prompt_id is not None:
            self._record(PromptVanished(message=_PREPARED_ANEW))
            raise ComfyUIUnavailable(_PREPARED_ANEW)
        return None

    def _upload(self, run: Run) -> Graph:
        request = run.request
        if not request.input_images:
            return run.graph
        return upload_inputs(
            self._link,
            run.graph,
            request.input_images,
            run.comfyui_input_dir,
            say=lambda message: self._announce(Phase.UPLOADING, message),
            stop_if_asked=self._stop_if_asked,
            live=self._live,
        )

    def _announce(self, phase: Phase, message: str) -> None:
        self._stop_if_asked()
        self._record(PhaseEntered(phase=phase, message=message))

    def _stop_if_asked(self) -> None:
        if self._should_stop():
            raise Stopped("stopped before the prompt was submitted")

    def _post(self, run: Run, graph: Graph) -> Run:
        """With an ear on the websocket, if it can be had: what is said before is never said again."""
        self._link.feed.wait_connected(FEED_WAIT_S)
        self._sender.check_data()
        try:
            answer = self._link.client.submit(
                graph,
                prompt_id=run.prompt_id or "",
                client_id=self._link.feed.client_id,
                extra_data=extra_data_of(run, self._sender.process, self._api_key()),
                definitions=lambda: self._link.definitions().object_info,
            )
        except ComfyUIUnavailable:
            known = self._ask(run)  # at once: should ComfyUI be restarted now, it forgets that it had it
            if known is None:
                raise
            return self._record(PromptAccepted(prompt_id=known.prompt_id))
        if answer.node_errors:
            self._report_dropped(answer.node_errors, graph)
        return self._record(PromptAccepted(prompt_id=answer.prompt_id))

    def _refuse_without_key(self, run: Run) -> None:
        """The key of a run is gone once its prompt was accepted. Raises: ApiKeyGone."""
        if not run.request.has_comfy_org_api_key or self._api_key() is not None:
            return
        needing = nodes_that_need_a_key(run.graph, self._link.definitions().object_info)
        if needing:
            raise ApiKeyGone(
                "The prompt cannot be submitted again: the API key of Comfy.org that came with it is not "
                f"kept once ComfyUI has accepted it, and node {needing[0]} needs it. Order it anew, with it"
            )

    def _report_dropped(self, node_errors: Mapping[str, Any], graph: Graph) -> None:
        """Outputs that failed validation are dropped, and what only they need does not run."""
        definitions = self._link.definitions()
        findings = "; ".join(node_findings(node_errors, graph, definitions.object_info))
        kept = [
            node_id
            for node_id in output_ids(graph, definitions)
            if node_id not in dropped_outputs(node_errors)
        ]
        self._record(NodesPlanned(nodes=planned_nodes(graph, kept)))
        self._record(
            NoticeGiven(
                message=f"ComfyUI leaves out some outputs of the workflow and runs the rest: {findings}"
            )
        )

    def _find(self, run: Run) -> FoundPrompt | None:
        """The prompt as ComfyUI has it."""
        return self._look(lambda: self._ask(run), run)

    def _look(self, look: Callable[[], T | None], run: Run) -> T | None:
        """What is found; looked for until the prompt of the run cannot be under way any more."""
        until_s = time.monotonic() + max(LOOK_AGAIN_AFTER_S, self._sender.in_doubt_for_s(run))
        while (found := look()) is None and (left_s := until_s - time.monotonic()) > 0:
            wait(min(left_s, LOOK_AGAIN_AFTER_S), self._should_stop)
            self._stop_if_asked()
        return found

    def _ask(self, run: Run) -> FoundPrompt | None:
        return find_prompt(self._link.client, run.prompt_id or "", correlation_of(run))


def extra_data_of(run: Run, process: str, api_key: str | None = None) -> dict[str, Any]:
    """Kept by ComfyUI as it is. `extra_pnginfo` is what its nodes write into the pictures they save."""
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
