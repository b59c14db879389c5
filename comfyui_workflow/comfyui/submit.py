"""Getting a prompt into ComfyUI's queue exactly once: `submit_once`.

How it works. ComfyUI runs a prompt twice when it is sent twice, under the same id or not, and a broken
connection does not tell whether it arrived. So the id is the sender's own, and is noted before the prompt is
sent; whenever the answer is missing, ComfyUI is asked for that id before the prompt is sent again:

1. Was it sent before without an answer, it is looked for until it cannot be under way any more: it may be in
   the network, in the SSH server of the instance or under ComfyUI's validation.
2. If it is not there, it is made ready, its sender waits for its turn, notes what it does, and sends it.
3. If the answer is lost, ComfyUI is asked at once: should it be restarted now, it forgets that it had it.
4. If it was sent again, the first one may have arrived meanwhile: one of the two is deleted.

A copy that arrives still later is found by whoever follows the prompt: see `duplicate_prompts`.

What differs between senders is a `PromptSender`: a run keeps a journal, the public client tries again for
some seconds, a local port sends what somebody else has written.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

from comfyui_workflow.comfyui.client import ComfyUIClient, Submission
from comfyui_workflow.comfyui.prompt_lookup import (
    LOOK_AGAIN_AFTER_S,
    FoundPrompt,
    drop_copies,
    find_prompt,
)
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ComfyUIUnavailable

T = TypeVar("T")

IN_DOUBT_S = 10.0
"""How long a prompt that was sent without an answer may take to turn up. ComfyUI takes seconds to validate a
large graph."""


@dataclass(frozen=True, kw_only=True)
class PromptKey:
    """A prompt that was sent: its id, and what our mark in it says, for a ComfyUI that chooses the ids."""

    prompt_id: str
    correlation: str


class PromptSender(ABC):
    """The sender of one prompt. Every method is called by the thread that submits it."""

    @property
    @abstractmethod
    def sent(self) -> PromptKey | None:
        """The prompt as it may have arrived already; None before it is sent for the first time."""

    @abstractmethod
    def note_sending(self) -> None:
        """Called before each sending: `sent` is its key from now on, also after a crash where that counts."""

    @abstractmethod
    def send(self) -> Submission:
        """Posts it once. Raises: ComfyUIUnavailable when it may or may not have arrived; PromptRefused."""

    def in_doubt_for_s(self) -> float:
        """How much longer a prompt that was sent may take to turn up."""
        return 0.0

    def may_be_sent_again(self) -> bool:
        """Asked when the prompt that was sent is not there."""
        return True

    def prepare(self) -> FoundPrompt | None:
        """Makes everything ready; the prompt, where it turns out that ComfyUI has it."""
        return None

    def slot(self) -> AbstractContextManager[None]:
        """Held while a new prompt is sent: where prompts of several senders must arrive one by one."""
        return nullcontext()

    def find_unrecorded(self) -> FoundPrompt | None:
        """A prompt that ComfyUI has, though its sender's records do not know of it. Asked within the slot."""
        return None

    def accepted(self, submission: Submission) -> None:  # noqa: B027 - most senders note nothing
        """Called as soon as it is known that ComfyUI has the prompt."""


def submit_once(client: ComfyUIClient, sender: PromptSender, stop: CancelToken) -> Submission | None:
    """The prompt as ComfyUI has it, sent now or before; None where it is not there and may not be sent again.
    After ComfyUIUnavailable it may be called again with the same owner.
    Raises: ComfyUIUnavailable, PromptRefused, Stopped; what the sender raises."""
    sent = sender.sent
    if sent is not None:
        found_prompt = look_for(lambda: _find(client, sent), sender.in_doubt_for_s(), stop)
        if found_prompt is not None:
            return _found(sender, found_prompt)
        if not sender.may_be_sent_again():
            return None
    found_prompt = sender.prepare()
    if found_prompt is not None:
        return _found(sender, found_prompt)
    stop.check()
    if sent is None:
        return _send_first(client, sender, stop)
    submission = _send(client, sender)
    drop_copies(client, submission.prompt_id)
    return submission


def look_for(look: Callable[[], T | None], in_doubt_s: float, stop: CancelToken) -> T | None:
    """What `look` finds, or None after `in_doubt_s`. Absent twice is absent: what was under way when a
    connection broke has arrived by the second look. Raises: Stopped; what `look` raises."""
    until_s = time.monotonic() + max(LOOK_AGAIN_AFTER_S, in_doubt_s)
    while (found := look()) is None and (left_s := until_s - time.monotonic()) > 0:
        stop.wait(min(left_s, LOOK_AGAIN_AFTER_S))
        stop.check()
    return found


def _send_first(client: ComfyUIClient, sender: PromptSender, stop: CancelToken) -> Submission:
    with sender.slot():
        stop.check()
        found_prompt = sender.find_unrecorded()
        return _send(client, sender) if found_prompt is None else _found(sender, found_prompt)


def _send(client: ComfyUIClient, sender: PromptSender) -> Submission:
    sender.note_sending()
    try:
        submission = sender.send()
    except ComfyUIUnavailable:
        found_prompt = None if sender.sent is None else _find(client, sender.sent)
        if found_prompt is None:
            raise
        return _found(sender, found_prompt)
    sender.accepted(submission)
    return submission


def _found(sender: PromptSender, found_prompt: FoundPrompt) -> Submission:
    submission = Submission(prompt_id=found_prompt.prompt_id, node_errors={})
    sender.accepted(submission)
    return submission


def _find(client: ComfyUIClient, key: PromptKey) -> FoundPrompt | None:
    return find_prompt(client, key.prompt_id, key.correlation)
