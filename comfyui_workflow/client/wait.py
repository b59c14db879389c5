"""Waiting for one prompt to end: the websocket for haste, the queue and the history for certainty."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from comfyui_workflow.client.errors import PromptInterrupted, TimedOut
from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.comfyui.event_stream import EventFeed, Subscription
from comfyui_workflow.comfyui.failures import failure_sentence
from comfyui_workflow.comfyui.history import HistoryEntry, Outcome
from comfyui_workflow.comfyui.prompt_tracker import PromptEnded, PromptFollower
from comfyui_workflow.comfyui.queue import QueueSnapshot
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import (
    ComfyUIError,
    ComfyUIUnavailable,
    PromptFailed,
    PromptLost,
)
from comfyui_workflow.retry import Backoff

AWAY_LIMIT_S = 600.0
"""A ComfyUI may be restarted, a connection cut; this long, it is not coming back."""


@dataclass(frozen=True, kw_only=True)
class PromptWait:
    """For a prompt that was submitted. `at_each_look` is called at least once a second."""

    client: ComfyUIClient
    feed: EventFeed
    queue: Callable[[], QueueSnapshot]
    prompt_id: str
    timeout_s: float | None
    at_each_look: Callable[[], None] = lambda: None
    stop: CancelToken = field(default_factory=CancelToken)

    def until_ended(self, subscription: Subscription) -> HistoryEntry | None:
        """How it ended; None for one that is in neither queue nor history. Raises: TimedOut; InstanceBroken
        when it will never end; ComfyUIUnavailable when ComfyUI is away for too long; Stopped."""
        deadline_s = None if self.timeout_s is None else time.monotonic() + self.timeout_s
        patience = Backoff()
        while True:
            try:
                return self._follow(subscription, deadline_s, patience)
            except ComfyUIUnavailable:
                wait_s = patience.next_wait_s()
                if patience.failing_for_s() > AWAY_LIMIT_S:
                    raise
                self.stop.wait(min(wait_s, _left_s(deadline_s)))
                self._check(deadline_s)

    def _follow(
        self, subscription: Subscription, deadline_s: float | None, patience: Backoff
    ) -> HistoryEntry | None:
        follower = PromptFollower(
            self.client, self.feed, self.queue, self.prompt_id, stall_limit_s=0, stop=self.stop
        )
        for item in follower.follow(subscription):
            if isinstance(item, PromptEnded):
                return item.entry
            if item is not None:
                patience.reset()
            self.at_each_look()
            self._check(deadline_s)
        raise ComfyUIUnavailable("The prompt was lost from sight")

    def _check(self, deadline_s: float | None) -> None:
        self.stop.check()
        if not _left_s(deadline_s):
            within = f"within {self.timeout_s:g} s"
            raise TimedOut(f"The prompt {self.prompt_id} has not ended {within}. It goes on")


def judged(prompt_id: str, entry: HistoryEntry | None, *, was_cancelled: bool) -> HistoryEntry:
    """The entry of a prompt that succeeded. Raises: PromptFailed, PromptInterrupted, PromptLost, each with
    `prompt_id` and `node_id`."""
    if entry is not None and entry.outcome is Outcome.SUCCESS:
        return entry
    error = _error(entry, was_cancelled=was_cancelled)
    error.prompt_id = prompt_id
    error.node_id = None if entry is None else entry.failed_node_id
    raise error


def _error(entry: HistoryEntry | None, *, was_cancelled: bool) -> ComfyUIError:
    if entry is None and was_cancelled:
        return PromptInterrupted("The prompt was cancelled before it ran")
    if entry is None:
        return PromptLost(
            "ComfyUI has the prompt in neither its queue nor its history: it was removed there, or ComfyUI "
            "was restarted. Submit it again if it is still wanted"
        )
    if entry.outcome is Outcome.INTERRUPTED:
        where = f" at node {entry.failed_node_id} ({entry.failed_node_type})" if entry.failed_node_id else ""
        return PromptInterrupted(f"The prompt was interrupted{where}")
    return PromptFailed(failure_sentence(entry, entry.failed_node_type))


def _left_s(deadline_s: float | None) -> float:
    return inf if deadline_s is None else max(0.0, deadline_s - time.monotonic())
