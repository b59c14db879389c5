"""Tests of following a prompt whose history entry cannot be read."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from comfyui_workflow.comfyui.prompt_tracker import MIN_FAILING_S, PromptEnded, PromptFollower
from comfyui_workflow.comfyui.queue import QueueSnapshot
from comfyui_workflow.errors import ComfyUIError, ComfyUIUnavailable

ENTRY = cast(Any, SimpleNamespace())


class Clock:
    """Moves only when the follower waits."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def take(self, timeout_s: float) -> tuple[()]:
        self.now_s += timeout_s
        return ()


def follow(clock: Clock, recovers_at_s: float) -> Iterator[Any]:
    """The queue is empty; `/history` answers 500 until `recovers_at_s`."""

    def history(prompt_id: str) -> Any:
        if clock.now_s < recovers_at_s:
            raise ComfyUIUnavailable("HTTP 500")
        return ENTRY

    empty = QueueSnapshot(running=(), pending=(), correlations={})
    client: Any = SimpleNamespace(history=history, probe=lambda: None, queue=lambda: empty)
    feed: Any = SimpleNamespace(silence_s=lambda: 0.0)
    subscription: Any = SimpleNamespace(take=clock.take, wake=lambda: None, began_at_s=0.0)
    follower = PromptFollower(client, feed, lambda: empty, "p", stall_limit_s=0, clock=clock)
    return follower.follow(subscription)


def test_a_history_that_answers_500_for_some_seconds_is_polled_until_it_recovers() -> None:
    clock = Clock()
    *_, last = follow(clock, recovers_at_s=0.8 * MIN_FAILING_S)
    assert last == PromptEnded(entry=ENTRY)


def test_a_history_that_always_answers_500_ends_the_prompt_with_an_error() -> None:
    clock = Clock()
    with pytest.raises(ComfyUIError, match="cannot tell how the prompt ended"):
        list(follow(clock, recovers_at_s=float("inf")))
    assert MIN_FAILING_S <= clock.now_s < 3 * MIN_FAILING_S
