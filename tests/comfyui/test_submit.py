"""Tests of `submit_once`: what is requested, recorded and sent, and in which order."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from comfyui_workflow.comfyui import submit
from comfyui_workflow.comfyui.client import Submission
from comfyui_workflow.comfyui.prompt_lookup import FoundPrompt
from comfyui_workflow.comfyui.queue import QueueSnapshot
from comfyui_workflow.comfyui.submit import PromptKey, PromptSender, submit_once
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ComfyUIUnavailable, Stopped

KEY = PromptKey(prompt_id="p", correlation="run/1")


class Instance:
    """A ComfyUI that has the prompt from lookup number `arrives_at` on."""

    def __init__(self, arrives_at: int | None = None) -> None:
        self.looks = 0
        self._arrives_at = arrives_at

    def queue(self) -> QueueSnapshot:
        self.looks += 1
        is_there = self._arrives_at is not None and self.looks >= self._arrives_at
        pending = (KEY.prompt_id,) if is_there else ()
        return QueueSnapshot(running=(), pending=pending, correlations={})

    def history(self, _prompt_id: str) -> None:
        return None

    def system(self) -> SimpleNamespace:
        return SimpleNamespace(comfyui_version="0.3.64")


class Journal(PromptSender):
    """A sender that records which of its methods are called."""

    def __init__(self, *, is_sent: bool = False, in_doubt_s: float = 0.0, is_lost: bool = False) -> None:
        self.done: list[str] = []
        self.wants_it = True
        self._sent = KEY if is_sent else None
        self._in_doubt_s = in_doubt_s
        self._is_lost = is_lost

    @property
    def sent(self) -> PromptKey | None:
        return self._sent

    def in_doubt_for_s(self) -> float:
        return self._in_doubt_s

    def may_be_sent_again(self) -> bool:
        return self.wants_it

    def prepare(self) -> FoundPrompt | None:
        self.done.append("prepared")
        return None

    @contextmanager
    def slot(self) -> Iterator[None]:
        self.done.append("slot taken")
        yield
        self.done.append("slot left")

    def note_sending(self) -> None:
        self.done.append("noted")
        self._sent = KEY

    def send(self) -> Submission:
        self.done.append("sent")
        if self._is_lost:
            raise ComfyUIUnavailable("the answer is lost")
        return Submission(prompt_id=KEY.prompt_id, node_errors={})

    def accepted(self, submission: Submission) -> None:
        self.done.append(f"accepted {submission.prompt_id}")


def submitted(sender: Journal, instance: Instance, stop: CancelToken | None = None) -> Submission | None:
    client: Any = instance
    return submit_once(client, sender, stop or CancelToken())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "LOOK_AGAIN_AFTER_S", 0.01)


def test_a_new_prompt_is_noted_before_it_is_sent_within_its_slot() -> None:
    sender = Journal()
    assert submitted(sender, Instance()) is not None
    assert sender.done == ["prepared", "slot taken", "noted", "sent", "accepted p", "slot left"]


def test_after_a_lost_answer_comfyui_is_asked_at_once() -> None:
    sender, instance = Journal(is_lost=True), Instance(arrives_at=1)
    assert submitted(sender, instance) is not None
    assert (sender.done.count("sent"), instance.looks) == (1, 1)


@pytest.mark.usefixtures("quick")
def test_what_is_in_doubt_is_held_until_it_turns_up() -> None:
    sender, instance = Journal(is_sent=True, in_doubt_s=10.0), Instance(arrives_at=5)
    assert submitted(sender, instance) is not None
    assert (sender.done, instance.looks) == (["accepted p"], 5)


@pytest.mark.usefixtures("quick")
def test_what_is_absent_for_as_long_as_it_is_in_doubt_is_sent_again() -> None:
    sender, instance = Journal(is_sent=True, in_doubt_s=0.1), Instance()
    assert submitted(sender, instance) is not None
    assert sender.done == ["prepared", "noted", "sent", "accepted p"]
    assert instance.looks > 2


@pytest.mark.usefixtures("quick")
def test_what_nobody_wants_any_more_is_not_sent_again() -> None:
    sender = Journal(is_sent=True)
    sender.wants_it = False
    assert submitted(sender, Instance()) is None
    assert sender.done == []


def test_who_stops_waits_for_nothing_that_is_in_doubt() -> None:
    sender, stop = Journal(is_sent=True, in_doubt_s=60.0), CancelToken()
    stop.cancel("the server is stopping")
    with pytest.raises(Stopped, match="the server is stopping"):
        submitted(sender, Instance(), stop)
    assert sender.done == []
