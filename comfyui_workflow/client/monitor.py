"""What ComfyUI says on its websocket, as calls: one for each message, by its type."""

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
"""Gets the message: `{"type": str, "data": {…}}`."""
ANY_TYPE = "*"
MOST_WAITING = 10_000
"""Messages that callbacks are behind; of more, the oldest are dropped."""
TICK_S = 0.5


class Monitor:
    """Hears what is said to the client that made it: of all its own prompts, and what everybody is told.

    Callbacks run one at a time on a thread of the monitor, in the order of the messages. One that raises is
    logged and called again for the next message. The socket is opened again whenever it breaks; what was
    said meanwhile is lost, so ask `history` for what must be known.
    """

    def __init__(self, feed: Callable[[], EventFeed], at_each_tick: Callable[[], None]) -> None:
        self._feed = feed
        self._at_each_tick = at_each_tick
        self._callbacks: dict[str, list[Callback]] = {}
        self._waiting: deque[Message] = deque(maxlen=MOST_WAITING)
        self._arrived = threading.Condition()
        self._last_started: object = None
        self._is_over = False
        self._listening = ExitStack()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(self, *exception: object) -> None:
        self.disconnect()

    def register_callback(self, message_type: str, callback: Callback) -> None:
        """`message_type` is ComfyUI's word (`progress`, `executing`, …), or `*` for all of them. The same
        callback is called once for a message, however often it is registered."""
        with self._arrived:
            known = self._callbacks.get(message_type, [])
            self._callbacks[message_type] = [*known, callback]

    def unregister_callback(self, message_type: str, callback: Callback) -> None:
        with self._arrived:
            known = self._callbacks.get(message_type, [])
            self._callbacks[message_type] = [each for each in known if each != callback]

    def connect(self) -> None:
        """Begin to listen; returns at once. Nothing when it listens already."""
        if self._thread is not None:
            return
        self._is_over = False
        self._listening.enter_context(self._feed().listen(self._hear))
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self._thread.start()

    def wait_connected(self, timeout_s: float) -> bool:
        """Whether the websocket is open by then."""
        return self._feed().wait_connected(timeout_s)

    def disconnect(self) -> None:
        """End listening. What has been heard is still told, unless a callback takes longer than that."""
        self._listening.close()
        with self._arrived:
            self._is_over = True
            self._arrived.notify()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=10 * TICK_S)

    def _hear(self, message: Message) -> None:
        """On the thread of the feed, which must not wait for anybody."""
        if self._is_repeated(message):
            return
        with self._arrived:
            if len(self._waiting) == MOST_WAITING:
                log.warning("the callbacks of a monitor are %d messages behind", MOST_WAITING)
            self._waiting.append(message)
            self._arrived.notify()

    def _is_repeated(self, message: Message) -> bool:
        """A new socket is told the running node once more, then without the id of the prompt."""
        data = message.get("data")
        if message.get("type") != "executing" or not isinstance(data, dict):
            return False
        last, self._last_started = self._last_started, data.get("node")
        return "prompt_id" not in data and last is not None and last == data.get("node")

    def _run(self) -> None:
        while True:
            with self._arrived:
                self._arrived.wait_for(lambda: self._waiting or self._is_over, TICK_S)
                messages = list(self._waiting)
                self._waiting.clear()
                is_over = self._is_over
            for message in messages:
                self._tell(message)
            if is_over:
                return
            self._at_each_tick()

    def _tell(self, message: Message) -> None:
        with self._arrived:
            kinds = (str(message.get("type")), ANY_TYPE)
            callbacks = [callback for kind in kinds for callback in self._callbacks.get(kind, ())]
        told: list[Callback] = []
        for callback in callbacks:
            if callback not in told:
                told.append(callback)
                _call(callback, message)


def _call(callback: Callback, message: Message) -> None:
    try:
        callback(dict(message))
    except Exception:
        log.exception("a callback for %s messages raised", message.get("type"))
