"""Submits a prompt to ComfyUI's queue exactly once: `submit_once`.

How it works. ComfyUI runs a prompt twice if it is sent twice, under the same id or not, and a broken
connection does not tell if the prompt arrived. So the sender chooses the id and stores it before it sends the
prompt. Whenever the response is missing, ComfyUI is asked for that id before the prompt is sent again:

1. If the prompt was sent before without a response, it is looked up until it cannot be in transit any more:
   it may be in the network, in the SSH server of the instance, or in ComfyUI's validation.
2. If ComfyUI does not have it, the sender prepares it, waits for its slot, records the sending, and sends it.
3. If the response is lost, ComfyUI is asked at once: after a restart it would not know the prompt any more.
4. If the prompt was sent again, the first copy may have arrived meanwhile: one of the two is deleted.

A copy that arrives later still is found by the code that tracks the prompt: see `duplicate_prompts`.

Each kind of sender is a subclass of `PromptSender`: a run writes a journal, the public client retries for
some seconds, a local port sends a body that its client wrote.
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
"""How long a prompt that was sent without a response may take to appear. ComfyUI takes seconds to validate a
large graph."""


@dataclass(frozen=True, kw_only=True)
class PromptKey:
    """Identifies a prompt that was sent: its id, and the correlation in our mark, for a ComfyUI that chooses
    the ids."""

    prompt_id: str
    correlation: str


class PromptSender(ABC):
    """The sender of one prompt. Every method is called in the thread that submits it."""

    @property
    @abstractmethod
    def sent(self) -> PromptKey | None:
        """The key of a prompt that may have arrived already; None before it is sent for the first time."""

    @abstractmethod
    def note_sending(self) -> None:
        """Called before each POST. From now on `sent` is the key of this prompt, also after a crash if the
        sender needs that."""

    @abstractmethod
    def send(self) -> Submission:
        """Posts the prompt once. Raises: ComfyUIUnavailable if it may or may not have arrived;
        PromptRefused."""

    def in_doubt_for_s(self) -> float:
        """Returns how much longer a prompt that was sent may take to appear."""
        return 0.0

    def may_be_sent_again(self) -> bool:
        """Called if ComfyUI does not have a prompt that was sent."""
        return True

    def prepare(self) -> FoundPrompt | None:
        """Prepares everything. Returns the prompt if it turns out that ComfyUI already has it."""
        return None

    def slot(self) -> AbstractContextManager[None]:
        """Held while a new prompt is sent, if the prompts of several senders must arrive one at a time."""
        return nullcontext()

    def find_unrecorded(self) -> FoundPrompt | None:
        """Returns a prompt that ComfyUI has although the sender has no record of it. Called within the
        slot."""
        return None

    def accepted(self, submission: Submission) -> None:  # noqa: B027 - most senders note nothing
        """Called as soon as it is known that ComfyUI has the prompt."""


def submit_once(client: ComfyUIClient, sender: PromptSender, stop: CancelToken) -> Submission | None:
    """Returns the prompt as ComfyUI has it, sent now or before; None if ComfyUI does not have it and it may
    not be sent again. After ComfyUIUnavailable it may be called again with the same sender. Raises:
    ComfyUIUnavailable, PromptRefused, Stopped; what the sender raises."""
    sent = sender.sent
    if sent is not None:
        found_prompt = poll_until_found(lambda: _find(client, sent), sender.in_doubt_for_s(), stop)
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


def poll_until_found(look: Callable[[], T | None], in_doubt_s: float, stop: CancelToken) -> T | None:
    """Calls `look` until it finds something; None after `in_doubt_s`. A prompt that is absent twice is
    absent: data that was in transit when a connection broke has arrived by the second look. Raises: Stopped;
    what `look` raises."""
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
