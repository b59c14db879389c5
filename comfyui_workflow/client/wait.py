"""Waits until one prompt has ended.

How it works: websocket events say when to look, and only ComfyUI's queue and history decide: an event may be
lost, and a socket may be deaf. While ComfyUI is away the wait continues with backoff, for AWAY_LIMIT_S.
"""

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
"""A restart of ComfyUI or a broken connection is waited for; a ComfyUI that is away for longer counts as
lost."""


@dataclass(frozen=True, kw_only=True)
class PromptWait:
    """Wait for a submitted prompt. `on_poll` is called at least once a second."""

    client: ComfyUIClient
    feed: EventFeed
    queue: Callable[[], QueueSnapshot]
    prompt_id: str
    timeout_s: float | None
    on_poll: Callable[[], None] = lambda: None
    stop: CancelToken = field(default_factory=CancelToken)

    def until_ended(self, subscription: Subscription) -> HistoryEntry | None:
        """Returns the history entry of the ended prompt; None if it is in neither queue nor history.
        Raises: TimedOut; InstanceBroken if the prompt can never end; ComfyUIUnavailable if ComfyUI is away
        for longer than AWAY_LIMIT_S; Stopped."""
        deadline_s = None if self.timeout_s is None else time.monotonic() + self.timeout_s
        backoff = Backoff()
        while True:
            try:
                return self._follow(subscription, deadline_s, backoff)
            except ComfyUIUnavailable:
                wait_s = backoff.next_wait_s()
                if backoff.failing_for_s() > AWAY_LIMIT_S:
                    raise
                self.stop.wait(min(wait_s, _left_s(deadline_s)))
                self._check(deadline_s)

    def _follow(
        self, subscription: Subscription, deadline_s: float | None, backoff: Backoff
    ) -> HistoryEntry | None:
        follower = PromptFollower(
            self.client, self.feed, self.queue, self.prompt_id, stall_limit_s=0, stop=self.stop
        )
        for item in follower.follow(subscription):
            if isinstance(item, PromptEnded):
                return item.entry
            if item is not None:
                backoff.reset()
            self.on_poll()
            self._check(deadline_s)
        raise ComfyUIUnavailable("The prompt can no longer be followed")

    def _check(self, deadline_s: float | None) -> None:
        self.stop.check()
        if not _left_s(deadline_s):
            within = f"within {self.timeout_s:g} s"
            raise TimedOut(f"The prompt {self.prompt_id} has not ended {within}. It goes on")


def require_success(prompt_id: str, entry: HistoryEntry | None, *, was_cancelled: bool) -> HistoryEntry:
    """Returns the entry of a prompt that succeeded. Raises: PromptFailed, PromptInterrupted, PromptLost, each
    with `prompt_id` and `node_id`."""
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
