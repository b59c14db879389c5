"""Callbacks for ComfyUI's websocket messages, registered by message type.

How it works: the event feed puts each message into a bounded queue without waiting; a thread of the monitor
takes the messages from the queue and calls the callbacks in order. A slow callback delays only its monitor.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Self

from comfyui_workflow.comfyui.event_stream import EventFeed
from comfyui_workflow.comfyui.messages import Message

log = logging.getLogger(__name__)

Callback = Callable[[dict[str, Any]], object]
"""Receives the message: `{"type": str, "data": {…}}`."""
ANY_TYPE = "*"
MOST_WAITING = 10_000
"""Maximum number of messages in the queue; beyond it the oldest are dropped."""
TICK_S = 0.5


class Monitor:
    """Receives the messages that ComfyUI sends to this client: those of its own prompts, and broadcasts.

    Callbacks run one at a time on a thread of the monitor, in the order of the messages. If a callback
    raises, the error is logged and the callback is called again for the next message. The socket is reopened
    when it breaks. Messages sent in between are lost: read the outcome of a prompt from `history`.
    """

    def __init__(self, feed: Callable[[], EventFeed], at_each_tick: Callable[[], None]) -> None:
        self._feed = feed
        self._at_each_tick = at_each_tick
        self._callbacks: dict[str, list[Callback]] = {}
        self._waiting: deque[Message] = deque(maxlen=MOST_WAITING)
        self._changed = threading.Condition()
        self._last_started: object = None
        self._is_closed = False
        self._listening = ExitStack()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(self, *exception: object) -> None:
        self.disconnect()

    def register_callback(self, message_type: str, callback: Callback) -> None:
        """Registers a callback. `message_type` is a type of ComfyUI (`progress`, `executing`, …), or `*` for
        all types. A callback that is registered twice is called once for each message."""
        with self._changed:
            known = self._callbacks.get(message_type, [])
            self._callbacks[message_type] = [*known, callback]

    def unregister_callback(self, message_type: str, callback: Callback) -> None:
        with self._changed:
            known = self._callbacks.get(message_type, [])
            self._callbacks[message_type] = [each for each in known if each != callback]

    def connect(self) -> None:
        """Starts to listen and returns at once. Does nothing if the monitor listens already."""
        if self._thread is not None:
            return
        self._is_closed = False
        self._listening.enter_context(self._feed().listen(self._enqueue))
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self._thread.start()

    def wait_connected(self, timeout_s: float) -> bool:
        """Returns True if the websocket is open within the timeout."""
        return self._feed().wait_connected(timeout_s)

    def disconnect(self) -> None:
        """Stops listening. Messages received before are still dispatched, for at most ten times TICK_S."""
        self._listening.close()
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=10 * TICK_S)

    def _enqueue(self, message: Message) -> None:
        """Adds a message to the queue. Runs on the thread of the feed, which must not block."""
        if self._is_repeated(message):
            return
        with self._changed:
            if len(self._waiting) == MOST_WAITING:
                log.warning("the callbacks of a monitor are %d messages behind", MOST_WAITING)
            self._waiting.append(message)
            self._changed.notify()

    def _is_repeated(self, message: Message) -> bool:
        """True if the message repeats the running node: ComfyUI sends it again to a new socket, then without
        `prompt_id`."""
        data = message.get("data")
        if message.get("type") != "executing" or not isinstance(data, dict):
            return False
        last, self._last_started = self._last_started, data.get("node")
        return "prompt_id" not in data and last is not None and last == data.get("node")

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed, TICK_S)
                messages = list(self._waiting)
                self._waiting.clear()
                is_closed = self._is_closed
            for message in messages:
                self._dispatch(message)
            if is_closed:
                return
            self._at_each_tick()

    def _dispatch(self, message: Message) -> None:
        with self._changed:
            kinds = (str(message.get("type")), ANY_TYPE)
            callbacks = [callback for kind in kinds for callback in self._callbacks.get(kind, ())]
        called: list[Callback] = []
        for callback in callbacks:
            if callback not in called:
                called.append(callback)
                _call(callback, message)


def _call(callback: Callback, message: Message) -> None:
    try:
        callback(dict(message))
    except Exception:
        log.exception("a callback for %s messages raised", message.get("type"))
