"""A prompt into ComfyUI's queue exactly once, also when an answer is lost on the way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from comfyui_workflow.comfyui.client import ComfyUIClient, Submission, answer_or
from comfyui_workflow.comfyui.prompt_lookup import (
    LOOK_AGAIN_AFTER_S,
    FoundPrompt,
    drop_copies,
    find_prompt,
)
from comfyui_workflow.comfyui.queue import CORRELATION_KEY
from comfyui_workflow.errors import ComfyUIUnavailable, Stopped
from comfyui_workflow.retry import Patience, wait
from comfyui_workflow.workflows.graph import Graph

Answer = TypeVar("Answer")


def never() -> bool:
    return False


def patiently(
    ask: Callable[[], Answer], patience_s: float, should_stop: Callable[[], bool] = never
) -> Answer:
    """Again and again while ComfyUI is away, but no longer than that. Raises: ComfyUIUnavailable; Stopped;
    what else `ask` raises."""
    patience = Patience()
    while True:
        try:
            return ask()
        except ComfyUIUnavailable:
            wait_s = patience.next_wait_s()
            if patience.failing_for_s() + wait_s > patience_s:
                raise
            _wait(wait_s, should_stop)


@dataclass(kw_only=True)
class OneSubmission:
    """`may_be_there`: it may have been sent already, so ComfyUI is asked before it is sent."""

    client: ComfyUIClient
    graph: Graph
    prompt_id: str
    client_id: str
    extra_data: Mapping[str, Any]
    may_be_there: bool
    should_stop: Callable[[], bool] = never

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
            _wait(LOOK_AGAIN_AFTER_S, self.should_stop)
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


def _wait(seconds: float, should_stop: Callable[[], bool]) -> None:
    wait(seconds, should_stop)
    if should_stop():
        raise Stopped("stopped before the prompt was submitted")
