"""Prompts of one ComfyUI client: submits, waits for and cancels them; owns the websocket for their events."""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from comfyui_workflow.client.submit import ClientSubmission, with_backoff
from comfyui_workflow.client.wait import PromptWait, require_success
from comfyui_workflow.comfyui.cancel import Canceller
from comfyui_workflow.comfyui.client import ComfyUIClient, Submission
from comfyui_workflow.comfyui.event_stream import EventFeed, Subscription
from comfyui_workflow.comfyui.history import HistoryEntry
from comfyui_workflow.comfyui.prompt_lookup import new_prompt_id
from comfyui_workflow.comfyui.prompt_tracker import DEAF_AFTER_S
from comfyui_workflow.comfyui.shared_queue import SharedQueue
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ComfyUIUnavailable
from comfyui_workflow.workflows.graph import Graph


@dataclass(frozen=True, kw_only=True)
class ActivePrompt:
    """A submitted prompt and the subscription to its events, which ends when `stack` is closed."""

    prompt_id: str
    subscription: Subscription
    stack: ExitStack


class Prompts:
    """Thread-safe."""

    def __init__(self, client: ComfyUIClient, url: str, client_id: str, patience_s: float) -> None:
        self._client = client
        self._url = url
        self._client_id = client_id
        self._patience_s = patience_s
        self._queue = SharedQueue(client.queue)
        self._lock = threading.Lock()
        self._feed: EventFeed | None = None
        self._cancelled: set[str] = set()
        self._last_submission_s: tuple[float, float] | None = None
        """Start and end of the last submission; None once `renew_if_deaf` has checked that the websocket
        received it."""

    def close(self) -> None:
        with self._lock:
            feed, self._feed = self._feed, None
        if feed is not None:
            feed.close()

    def feed(self) -> EventFeed:
        """Returns the event feed, which starts at the first call."""
        with self._lock:
            if self._feed is None:
                self._feed = EventFeed(self._url, self._client_id)
                self._feed.start()
            return self._feed

    def submit(
        self,
        graph: Graph,
        prompt_id: str,
        *,
        is_new: bool,
        extra_data: Mapping[str, Any],
        stop: CancelToken | None = None,
    ) -> Submission:
        """Submits the prompt exactly once. `is_new`: the id was never sent before, so ComfyUI need not be
        asked for it first.
        Raises: PromptRefused; Stopped; ComfyUIUnavailable, with a `prompt_id` if ComfyUI may have the
        prompt."""
        submission = ClientSubmission(
            client=self._client,
            graph=graph,
            prompt_id=prompt_id,
            client_id=self._client_id,
            extra_data=extra_data,
            may_be_there=not is_new,
            in_doubt_s=self._patience_s / 2,  # what is left is for sending it again
            stop=stop or CancelToken(),
        )
        began_s = time.monotonic()
        try:
            return with_backoff(submission.attempt, self._patience_s, stop)
        except ComfyUIUnavailable as error:
            if not submission.may_be_there:
                raise
            unsure = ComfyUIUnavailable(
                f"{error}. It is not known whether ComfyUI has the prompt. Submit it again with the "
                f"prompt_id {submission.prompt_id}: ComfyUI is then asked first, and no prompt runs twice"
            )
            unsure.prompt_id = submission.prompt_id
            raise unsure from error
        finally:
            with self._lock:
                self._last_submission_s = (began_s, time.monotonic())

    def send(self, graph: Graph, stop: CancelToken | None = None) -> ActivePrompt:
        """Subscribes to the events of a new prompt, then submits it. Raises: as `submit`."""
        prompt_id = new_prompt_id()
        with ExitStack() as stack:
            subscription = stack.enter_context(self.feed().subscribe(prompt_id))
            submission = self.submit(graph, prompt_id, is_new=True, extra_data={}, stop=stop)
            accepted_id = submission.prompt_id
            if accepted_id != prompt_id:  # a ComfyUI before 0.3.45 chooses the id
                subscription = stack.enter_context(self.feed().subscribe(accepted_id))
            return ActivePrompt(prompt_id=accepted_id, subscription=subscription, stack=stack.pop_all())

    def finish(
        self, prompt: ActivePrompt, timeout_s: float | None, stop: CancelToken | None = None
    ) -> HistoryEntry:
        """Waits for a prompt and returns its history entry. Raises: as `ComfyUI.wait`; Stopped."""
        prompt_id = prompt.prompt_id
        waiting = self._waiting(prompt_id, timeout_s, stop=stop)
        with prompt.stack:
            entry = waiting.until_ended(prompt.subscription)
        return require_success(prompt_id, entry, was_cancelled=prompt_id in self._cancelled)

    def wait(self, prompt_id: str, timeout_s: float | None) -> HistoryEntry:
        with ExitStack() as stack:
            subscription = stack.enter_context(self.feed().subscribe(prompt_id))
            prompt = ActivePrompt(prompt_id=prompt_id, subscription=subscription, stack=stack.pop_all())
        return self.finish(prompt, timeout_s)

    def interrupt(self, prompt_id: str) -> None:
        self._cancelled.add(prompt_id)
        with_backoff(Canceller(self._client, prompt_id).ask, self._patience_s)

    def cancel(self, prompt_id: str, timeout_s: float | None) -> HistoryEntry | None:
        """Interrupts the prompt again and again until it has ended, because ComfyUI does not confirm an
        interrupt."""
        self.interrupt(prompt_id)
        canceller = Canceller(self._client, prompt_id)
        with self.feed().subscribe(prompt_id) as subscription:
            return self._waiting(prompt_id, timeout_s, canceller.ask).until_ended(subscription)

    def renew_if_deaf(self) -> None:
        """Reopens the websocket if it is deaf: ComfyUI sends a `status` to every socket after a submission,
        so a socket that received nothing since then is broken."""
        with self._lock:
            if self._last_submission_s is None:
                return
            began_s, ended_s = self._last_submission_s
            if time.monotonic() - ended_s < DEAF_AFTER_S:
                return
            self._last_submission_s = None
        if self.feed().silence_s() > time.monotonic() - began_s:
            self.feed().renew()

    def _waiting(
        self,
        prompt_id: str,
        timeout_s: float | None,
        on_poll: Callable[[], None] = lambda: None,
        stop: CancelToken | None = None,
    ) -> PromptWait:
        return PromptWait(
            client=self._client,
            feed=self.feed(),
            queue=self._queue,
            prompt_id=prompt_id,
            timeout_s=timeout_s,
            on_poll=on_poll,
            stop=stop or CancelToken(),
        )
