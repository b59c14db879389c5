"""Exactly-once submission of a prompt by the public client."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from comfyui_workflow.comfyui.client import ComfyUIClient, Submission, answer_or_default
from comfyui_workflow.comfyui.prompt_lookup import FoundPrompt
from comfyui_workflow.comfyui.queue import CORRELATION_KEY
from comfyui_workflow.comfyui.submit import PromptKey, PromptSender, submit_once
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ComfyUIUnavailable
from comfyui_workflow.retry import Backoff
from comfyui_workflow.workflows.graph import Graph

Answer = TypeVar("Answer")


def with_backoff(ask: Callable[[], Answer], patience_s: float, stop: CancelToken | None = None) -> Answer:
    """Calls `ask`, and retries it with backoff while ComfyUI is away, for at most `patience_s`.
    Raises: ComfyUIUnavailable; Stopped; and what `ask` raises."""
    backoff, stop = Backoff(), stop or CancelToken()
    while True:
        try:
            return ask()
        except ComfyUIUnavailable:
            wait_s = backoff.next_wait_s()
            if backoff.failing_for_s() + wait_s > patience_s:
                raise
            stop.wait(wait_s)
            stop.check()


@dataclass(kw_only=True)
class ClientSubmission(PromptSender):
    """Submission of one prompt. `may_be_there`: the prompt may have been sent before, so ComfyUI is asked for
    it first."""

    client: ComfyUIClient
    graph: Graph
    prompt_id: str
    client_id: str
    extra_data: Mapping[str, Any]
    may_be_there: bool
    in_doubt_s: float = 0.0
    """Time to look for a prompt that was sent here without a response, before it is sent again."""
    stop: CancelToken = field(default_factory=CancelToken)
    _lost_at_s: float | None = None

    def attempt(self) -> Submission:
        """Submits the prompt. Call it again after ComfyUIUnavailable: the response may have been lost.
        Raises: ComfyUIUnavailable, PromptRefused, Stopped."""
        submission = submit_once(self.client, self, self.stop)
        if submission is None:
            raise AssertionError("the prompt may always be sent again")
        return submission

    @property
    def sent(self) -> PromptKey | None:
        if not self.may_be_there:
            return None
        return PromptKey(prompt_id=self.prompt_id, correlation=self.prompt_id)

    def in_doubt_for_s(self) -> float:
        """Returns how long the prompt must still be looked for; 0 if an earlier process sent it at an unknown
        time."""
        return 0.0 if self._lost_at_s is None else self.in_doubt_s - (time.monotonic() - self._lost_at_s)

    def prepare(self) -> FoundPrompt | None:
        if not self.may_be_there:
            self.client.probe()  # an error here means that nothing was sent
        return None

    def note_sending(self) -> None:
        self.may_be_there = True

    def send(self) -> Submission:
        try:
            return self.client.submit(
                self.graph,
                prompt_id=self.prompt_id,
                client_id=self.client_id,
                extra_data={**self.extra_data, CORRELATION_KEY: self.prompt_id},
                definitions=lambda: answer_or_default(self.client.definitions, {}),
            )
        except ComfyUIUnavailable:
            self._lost_at_s = time.monotonic()
            raise
