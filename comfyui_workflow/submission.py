"""Getting a prompt into ComfyUI's queue exactly once.

ComfyUI runs the same id twice when it is sent twice, and a broken connection does not tell whether a prompt
arrived. So the id is ours and on disk before it is sent, and whenever the answer is missing we ask for that
id before we send it again.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from comfyui_workflow.comfyui.finding import (
    LOOK_AGAIN_AFTER_S,
    drop_copies,
    find_prompt,
    find_prompt_of_run,
)
from comfyui_workflow.comfyui.queue import CORRELATION_KEY
from comfyui_workflow.comfyui.refusals import dropped_outputs, node_findings
from comfyui_workflow.errors import ApiKeyGone, ComfyUIUnavailable, RecordDamaged, Stopped
from comfyui_workflow.inputs import upload_inputs
from comfyui_workflow.link import Link
from comfyui_workflow.live import LiveRun
from comfyui_workflow.patience import wait
from comfyui_workflow.runs.events import (
    Event,
    NodesPlanned,
    NoticeGiven,
    PhaseEntered,
    PromptAccepted,
    PromptFound,
    PromptPrepared,
    PromptVanished,
)
from comfyui_workflow.runs.model import Graph, Lost, Phase, Run
from comfyui_workflow.workflows.api_nodes import nodes_that_need_a_key
from comfyui_workflow.workflows.graph import output_ids, planned_nodes

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


class Submitter:
    def __init__(
        self,
        link: Link,
        record: Callable[[Event], Run],
        should_stop: Callable[[], bool],
        place: Callable[[], AbstractContextManager[None]],
        live: LiveRun,
        *,
        api_key: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`api_key` tells that of Comfy.org, where the run has one that is still kept."""
        self._api_key = api_key
        self._link = link
        self._record = record
        self._should_stop = should_stop
        self._place = place
        self._live = live

    def ensure_submitted(self, run: Run, prompt_id: str) -> Run | None:
        """The run with its prompt accepted, submitted now if it was not before; None when it was cancelled
        and ComfyUI has not got it.
        Raises: PromptRefused; Stopped; what the link raises when it breaks, to be called again then."""
        if run.is_accepted:
            return run
        if run.prompt_id is not None:
            known = self._find(run)
            if known is not None:
                return self._record(PromptAccepted(prompt_id=known))
            if run.is_cancel_requested:
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
                run = self._record(PromptPrepared(prompt_id=prompt_id, boot_marker=self._link.boot_marker()))
                return self._post(run, graph)
        run = self._post(run, graph)
        drop_copies(self._link.client, run.prompt_id or "")
        return run

    def _after_damage(self, run: Run) -> Run | None:
        """The run with the prompt that the instance has of it; None where one may be submitted. The prompt by
        its own id is not there. Raises: RecordDamaged where none may be; ComfyUIUnavailable, to begin again
        with the graph, which is to be prepared anew."""
        if run.prompt_id is None and run.lost & {Lost.STATE, Lost.PROGRESS}:
            found = self._look_twice(lambda: find_prompt_of_run(self._link.client, run.workflow_id))
            if found is not None:
                return self._record(PromptFound(prompt_id=found.prompt_id, submissions=found.submissions))
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
        answer = self._link.client.submit(
            graph,
            prompt_id=run.prompt_id or "",
            client_id=self._link.feed.client_id,
            extra_data=extra_data_of(run, self._api_key()),
            definitions=lambda: self._link.definitions().object_info,
        )
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

    def _find(self, run: Run) -> str | None:
        """The id under which ComfyUI has this prompt."""
        return self._look_twice(lambda: self._ask(run))

    def _look_twice(self, look: Callable[[], T | None]) -> T | None:
        found = look()
        if found is None:
            wait(LOOK_AGAIN_AFTER_S, self._should_stop)
            self._stop_if_asked()
            found = look()
        return found

    def _ask(self, run: Run) -> str | None:
        return find_prompt(self._link.client, run.prompt_id or "", correlation_of(run))


def extra_data_of(run: Run, api_key: str | None = None) -> dict[str, Any]:
    """Kept by ComfyUI as it is. `extra_pnginfo` is what its nodes write into the pictures they save."""
    request, data = run.request, dict[str, Any]()
    data[CORRELATION_KEY] = correlation_of(run)
    if request.editor_file is not None:
        data["extra_pnginfo"] = {"workflow": request.editor_file}
    if api_key is not None:
        data["api_key_comfy_org"] = api_key
    return data


def correlation_of(run: Run) -> str:
    return f"{run.workflow_id}/{run.submissions}"
