"""Tracks one prompt from its submission to its end, by websocket messages and by polling."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.comfyui.duplicate_prompts import DuplicatePrompts
from comfyui_workflow.comfyui.event_stream import EventFeed, Subscription
from comfyui_workflow.comfyui.history import HistoryEntry
from comfyui_workflow.comfyui.messages import MessageReader, says_ended
from comfyui_workflow.comfyui.queue import QueueSnapshot
from comfyui_workflow.comfyui.stall_detector import StallDetector
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ComfyUIError, ComfyUIUnavailable
from comfyui_workflow.runs.events import Event, ExecutionStarted, QueuePositionChanged

TICK_S = 1.0
FIRST_POLL_S = 0.25
POLL_S = 2.0
"""Polling interval; a poll is skipped if the websocket had messages of this prompt meanwhile."""
DEAF_AFTER_S = 1.0
"""ComfyUI sends a `status` to every socket after each submission; a socket that receives nothing within this
time is deaf (open, but ComfyUI sends it nothing)."""
SILENCE_BEFORE_RENEWAL_S = 5.0
"""A node may be silent for longer, so this doubles after each renewal: a new socket costs little, a deaf one
loses all progress."""
LONGEST_SILENCE_S = 60.0
MAX_FAILED_POLLS = 5
_NOT_SEEN = -1
"""Queue position of a prompt that was not seen yet; None is the position of the running prompt."""
MIN_FAILING_S = 10.0
"""A proxy in front of ComfyUI can answer 500 to several polls in a row before it recovers."""


@dataclass(frozen=True, kw_only=True)
class PromptEnded:
    """The prompt has ended; `entry` is None if it is neither in the queue nor in the history."""

    entry: HistoryEntry | None
    was_waiting: bool = False
    """The prompt was in the queue and did not execute when it was last seen."""


class PromptFollower:
    """Tracks one prompt. `queue` returns the copy of `/queue` that the runs of one instance share: it may be
    a second or two old."""

    def __init__(
        self,
        client: ComfyUIClient,
        feed: EventFeed,
        queue: Callable[[], QueueSnapshot],
        prompt_id: str,
        *,
        stall_limit_s: float,
        copies: DuplicatePrompts | None = None,
        on_copy: Callable[[], None] = lambda: None,
        stop: CancelToken | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`copies` is set for a prompt that may have been sent more than once. `on_copy` is called if one of
        the duplicates had started as well."""
        self._copies = copies
        self._on_copy = on_copy
        self._stop = stop or CancelToken()
        self._client = client
        self._feed = feed
        self._queue = queue
        self._prompt_id = prompt_id
        self._clock = clock
        self._reader = MessageReader()
        self._stall = StallDetector(client, stall_limit_s, clock)
        self._position: int | None = _NOT_SEEN
        self._failed_polls = 0
        self._failing_since_s = 0.0
        self._began_at_s = clock()
        self._renewal_after_s = DEAF_AFTER_S

    def follow(self, subscription: Subscription) -> Iterator[Event | PromptEnded | None]:
        """Yields events as they happen, None at least once a second and when woken, and PromptEnded as the
        last. Raises: ComfyUIUnavailable if ComfyUI cannot be reached; InstanceBroken if the prompt will never
        end; Stopped."""
        with self._stop.on_cancel(subscription.wake):
            yield from self._follow(subscription)

    def _follow(self, subscription: Subscription) -> Iterator[Event | PromptEnded | None]:
        interval_s, has_messages = FIRST_POLL_S, False
        next_poll_s = self._clock() + interval_s
        while True:
            self._stop.check()
            messages = subscription.take(min(TICK_S, max(0.0, next_poll_s - self._clock())))
            for message in messages:
                self._stall.record_progress()
                yield from self._reader.events(message)
            has_ended = any(map(says_ended, messages))
            has_messages = has_messages or bool(messages)
            if has_ended or self._clock() >= next_poll_s:
                found = self._poll(has_ended, has_messages)
                if isinstance(found, PromptEnded):
                    self._renew_if_silent(subscription)
                    yield found
                    return
                yield found
                interval_s, has_messages = min(1.5 * interval_s, POLL_S), False
                next_poll_s = self._clock() + interval_s
            else:
                yield None
            self._renew_if_deaf()

    def _poll(self, has_ended: bool, has_messages: bool) -> Event | PromptEnded | None:
        """Polls the queue and the history. Skipped if the websocket had messages of the prompt, unless they
        report its end. The queue (shared by all runs of the instance) is requested before the history (one
        request per run). A prompt that is in neither may have moved from one to the other meanwhile."""
        if has_messages and not has_ended and self._copies is None:
            return None
        snapshot = None if has_ended else self._queue()
        if snapshot is not None and self._prompt_id in snapshot:
            return self._drop_copies(snapshot) or self._in_queue(snapshot.position(self._prompt_id))
        entry = self._history()
        return PromptEnded(entry=entry) if entry is not None else self._confirm_absence()

    def _drop_copies(self, snapshot: QueueSnapshot) -> PromptEnded | None:
        """Deletes duplicates. Returns PromptEnded if the running prompt is a duplicate: the prompt itself is
        in the history already."""
        if self._copies is None:
            return None
        if self._copies.drop(snapshot):
            self._on_copy()
        entry = self._history() if self._prompt_id in snapshot.running else None
        return None if entry is None else PromptEnded(entry=entry)

    def _in_queue(self, position: int | None) -> Event:
        """`position` is None for the running prompt. Raises: InstanceBroken."""
        if position != self._position:
            self._position = position
            self._stall.record_progress()
        self._stall.check(is_running=position is None)
        return ExecutionStarted() if position is None else QueuePositionChanged(position=position)

    def _confirm_absence(self) -> Event | PromptEnded | None:
        """Requests the queue again: the shared copy may be older than the submission."""
        snapshot = self._client.queue()
        if self._prompt_id in snapshot:
            return self._in_queue(snapshot.position(self._prompt_id))
        entry = self._history()
        if entry is None and self._failed_polls:
            return None
        return PromptEnded(entry=entry, was_waiting=self._position not in (None, _NOT_SEEN))

    def _history(self) -> HistoryEntry | None:
        """If a result cannot be encoded as JSON, ComfyUI always answers 500 for this prompt. Raises:
        ComfyUIError once that is certain."""
        try:
            entry = self._client.history(self._prompt_id)
        except ComfyUIUnavailable as error:
            self._client.probe()  # raises, too, if not only this prompt is affected
            if self._failed_polls == 0:
                self._failing_since_s = self._clock()
            self._failed_polls += 1
            is_lasting = self._clock() - self._failing_since_s >= MIN_FAILING_S
            if is_lasting and self._failed_polls >= MAX_FAILED_POLLS:
                raise ComfyUIError(f"ComfyUI cannot tell how the prompt ended: {error}") from error
            return None
        self._failed_polls = 0
        return entry

    def _renew_if_deaf(self) -> None:
        silence_s = min(self._feed.silence_s(), self._clock() - self._began_at_s)
        if silence_s < DEAF_AFTER_S:
            self._renewal_after_s = SILENCE_BEFORE_RENEWAL_S
        elif silence_s > self._renewal_after_s:
            self._feed.renew()
            self._renewal_after_s = min(
                LONGEST_SILENCE_S, max(SILENCE_BEFORE_RENEWAL_S, 2 * self._renewal_after_s)
            )

    def _renew_if_silent(self, subscription: Subscription) -> None:
        """Renews the socket if no message came between the start and the end of the prompt: the next prompt
        would have no messages either."""
        if self._feed.silence_s() > time.monotonic() - subscription.began_at_s:
            self._feed.renew()
