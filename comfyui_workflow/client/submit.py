"""A prompt into ComfyUI's queue exactly once, also when an answer is lost on the way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from comfyui_workflow.comfyui.client import ComfyUIClient, Submission, answer_or
from comfyui_workflow.comfyui.prompt_lookup import (
    LOOK_AGAIN_AFTER_S,
    FoundPrompt,
    drop_copies,
    find_prompt,
)
from comfyui_workflow.comfyui.queue import CORRELATION_KEY
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ComfyUIUnavailable
from comfyui_workflow.retry import Patience
from comfyui_workflow.runs.model import Graph

Answer = TypeVar("Answer")


def patiently(ask: Callable[[], Answer], patience_s: float, stop: CancelToken | None = None) -> Answer:
    """Again and again while ComfyUI is away, but no longer than that. Raises: ComfyUIUnavailable; Stopped;
    what else `ask` raises."""
    patience, stop = Patience(), stop or CancelToken()
    while True:
        try:
            return ask()
        except ComfyUIUnavailable:
            wait_s = patience.next_wait_s()
            if patience.failing_for_s() + wait_s > patience_s:
                raise
            stop.wait(wait_s)
            stop.check()


@dataclass(kw_only=True)
class OneSubmission:
    """`may_be_there`: it may have been sent already, so ComfyUI is asked before it is sent."""

    client: ComfyUIClient
    graph: Graph
    prompt_id: str
    client_id: str
    extra_data: Mapping[str, Any]
    may_be_there: bool
    stop: CancelToken = field(default_factory=CancelToken)

    def attempt(self) -> Submission:
        """To be called again after ComfyUIUnavailable, by which an answer may have been lost.
        Raises: ComfyUIUnavailable, PromptRefused, Stopped."""
        was_sent = self.may_be_there
        if was_sent:
            known = self._find()
            if known is not None:
                return Submission(prompt_id=known.prompt_id, node_errors={})
        else:
            self.client.probe()  # what fails here has not been sent
        self.may_be_there = True
        submission = self._send()
        if was_sent:
            drop_copies(self.client, submission.prompt_id)
        return submission

    def _find(self) -> FoundPrompt | None:
        """Absent twice, with time in between for what is still on its way."""
        known = find_prompt(self.client, self.prompt_id, self.prompt_id)
        if known is None:
            self.stop.wait(LOOK_AGAIN_AFTER_S)
            self.stop.check()
            known = find_prompt(self.client, self.prompt_id, self.prompt_id)
        return known

    def _send(self) -> Submission:
        return self.client.submit(
            self.graph,
            prompt_id=self.prompt_id,
            client_id=self.client_id,
            extra_data={**self.extra_data, CORRELATION_KEY: self.prompt_id},
            definitions=lambda: answer_or(self.client.definitions, {}),
        )
