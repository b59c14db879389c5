"""The warm-up: a prompt that runs once on each ComfyUI that has just started, and loads its models.

How it works. The prompt has an id that is derived from its workflow, the same on each instance and after each
restart. ComfyUI's queue and history are empty after a start, so they tell whether it ran since; a small file
in ComfyUI's temp directory, which a start empties, tells it if the history was cleared. It is no run of this
server: it is in no list, and its outputs stay on the instance.
"""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO

from comfyui_workflow.comfyui.client import ComfyUIClient, Submission
from comfyui_workflow.comfyui.failures import failure_sentence
from comfyui_workflow.comfyui.history import HistoryEntry, Outcome
from comfyui_workflow.comfyui.prompt_lookup import derived_prompt_id, find_prompt
from comfyui_workflow.comfyui.queue import CORRELATION_KEY
from comfyui_workflow.comfyui.submit import PromptKey, PromptSender, submit_once
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ComfyUIUnavailable, InvalidGraph, PromptFailed
from comfyui_workflow.execution.prepare import graph_on_instance, refuse_unless_it_runs, validate_on_instance
from comfyui_workflow.sessions.session import ComfyUISession, InstanceKey
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.input_formats import read_workflow_file
from comfyui_workflow.workflows.model import GraphRequest

LIMIT_S = 1800.0
"""A warm-up that takes longer has failed. It goes on in ComfyUI, and the instance takes runs."""
POLL_S = 0.5
_NAMES = uuid.UUID("5a1f7a52-6f0e-4a53-8c1e-7f6b8f0a4d11")

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """A step of `Preparations`."""

    load: Callable[[], GraphRequest]
    """Returns the workflow of the settings. Raises: WorkflowError."""
    limit_s: float = LIMIT_S
    name: str = "The warm-up"

    def carry_out(self, key: InstanceKey, session: ComfyUISession, stop: CancelToken, say: Say) -> None:
        """Returns when the prompt has run since ComfyUI started. Raises: PromptFailed; InvalidGraph,
        PromptRefused; Stopped; the errors of ComfyUI."""
        request = self.load()
        digest = sha256(repr((request.workflow, request.inputs)).encode("utf-8", "replace")).hexdigest()[:32]
        correlation = f"warm-up-{digest}"
        prompt_id, marker = derived_prompt_id(_NAMES, correlation), f"comfyui_workflow_warm_{digest}.txt"
        client, until_s = session.client, time.monotonic() + self.limit_s
        say("Warming up")
        found = find_prompt(client, prompt_id, correlation, is_thorough=False)
        if found is not None:
            prompt_id = found.prompt_id
        elif client.has_file(marker, folder="temp"):
            return  # it has run; somebody has cleared the history
        else:
            session.drop_definitions()  # there may be others since ComfyUI restarted
            graph = graph_on_instance(session, request)
            refuse_unless_it_runs(validate_on_instance(session, graph, ()))
            sender = _WarmUpSender(session, graph, PromptKey(prompt_id=prompt_id, correlation=correlation))
            submission = submit_once(client, sender, stop)
            prompt_id = submission.prompt_id if submission is not None else prompt_id
            client.upload(BytesIO(b"."), marker, folder="temp")
        self._follow(client, prompt_id, until_s, stop)

    def _follow(self, client: ComfyUIClient, prompt_id: str, until_s: float, stop: CancelToken) -> None:
        while time.monotonic() < until_s:
            is_queued = prompt_id in client.queue()  # before the history: it moves from here to there
            entry = client.history(prompt_id)
            if entry is not None:
                _check(entry)
                return
            if not is_queued:
                raise ComfyUIUnavailable("ComfyUI has lost the prompt of the warm-up")
            stop.wait(POLL_S)
            stop.check()
        raise PromptFailed(f"it has not ended within {self.limit_s:.0f} s")


class _WarmUpSender(PromptSender):
    """Two servers that warm up one ComfyUI at the same moment may send it twice; it is harmless."""

    def __init__(self, session: ComfyUISession, graph: Graph, key: PromptKey) -> None:
        self._session = session
        self._graph = graph
        self._key = key
        self._sent: PromptKey | None = None

    @property
    def sent(self) -> PromptKey | None:
        return self._sent

    def note_sending(self) -> None:
        self._sent = self._key

    def send(self) -> Submission:
        return self._session.client.submit(
            self._graph,
            prompt_id=self._key.prompt_id,
            client_id=self._key.prompt_id,  # nobody listens to its messages
            extra_data={CORRELATION_KEY: self._key.correlation},
            definitions=lambda: self._session.definitions().object_info,
        )


def _check(entry: HistoryEntry) -> None:
    """Raises: PromptFailed."""
    if entry.outcome is Outcome.INTERRUPTED:
        raise PromptFailed("its prompt was interrupted on the instance")
    if entry.outcome is not Outcome.SUCCESS:
        raise PromptFailed(failure_sentence(entry, None, has_editor_file=False))


def read_warm_up(content: bytes, where: str) -> GraphRequest:
    """Reads the workflow of the warm-up. Raises: InvalidGraph."""
    try:
        return GraphRequest(workflow=read_workflow_file(content))
    except (ValueError, RecursionError) as error:
        raise InvalidGraph(f"{where} is not a workflow: {error}") from error
