"""A prompt of a caller of the public client on its way into ComfyUI's queue, exactly once."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from comfyui_workflow.comfyui.client import ComfyUIClient, Submission, answer_or
from comfyui_workflow.comfyui.prompt_lookup import FoundPrompt
from comfyui_workflow.comfyui.queue import CORRELATION_KEY
from comfyui_workflow.comfyui.submit import PromptKey, PromptSender, submit_once
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ComfyUIUnavailable
from comfyui_workflow.retry import Backoff
from comfyui_workflow.workflows.graph import Graph

Answer = TypeVar("Answer")


def with_backoff(ask: Callable[[], Answer], patience_s: float, stop: CancelToken | None = None) -> Answer:
    """Again and again while ComfyUI is away, but no longer than that. Raises: ComfyUIUnavailable; Stopped;
    what else `ask` raises."""
    patience, stop = Backoff(), stop or CancelToken()
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
class ClientSubmission(PromptSender):
    """`may_be_there`: it may have been sent already, so ComfyUI is asked before it is sent."""

    client: ComfyUIClient
    graph: Graph
    prompt_id: str
    client_id: str
    extra_data: Mapping[str, Any]
    may_be_there: bool
    in_doubt_s: float = 0.0
    """How long a prompt that was sent here without an answer is looked for before it is sent again."""
    stop: CancelToken = field(default_factory=CancelToken)
    _lost_at_s: float | None = None

    def attempt(self) -> Submission:
        """To be called again after ComfyUIUnavailable, by which an answer may have been lost.
        Raises: ComfyUIUnavailable, PromptRefused, Stopped."""
        submission = submit_once(self.client, self, self.stop)
        if submission is None:
            raise AssertionError("it may always be sent again")
        return submission

    @property
    def sent(self) -> PromptKey | None:
        if not self.may_be_there:
            return None
        return PromptKey(prompt_id=self.prompt_id, correlation=self.prompt_id)

    def in_doubt_for_s(self) -> float:
        """Nothing for one that an earlier process sent: nobody knows when."""
        return 0.0 if self._lost_at_s is None else self.in_doubt_s - (time.monotonic() - self._lost_at_s)

    def prepare(self) -> FoundPrompt | None:
        if not self.may_be_there:
            self.client.probe()  # what fails here has not been sent
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
                definitions=lambda: answer_or(self.client.definitions, {}),
            )
        except ComfyUIUnavailable:
            self._lost_at_s = time.monotonic()
            raise
