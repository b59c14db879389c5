"""The one websocket to a ComfyUI, its messages sorted by prompt.

The websocket is a hint, never the truth: it can go deaf without closing, and nothing is replayed. What a
run must know it asks `/queue` and `/history` for; here it only learns sooner.
"""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import websocket
from websocket import ABNF

from comfyui_workflow.comfyui.bounded_socket import BoundedSocket
from comfyui_workflow.comfyui.http_responses import bounded_json
from comfyui_workflow.comfyui.limits import InstanceLimits, LimitBreaches
from comfyui_workflow.comfyui.messages import Message, prompt_id_of
from comfyui_workflow.comfyui.previews import Preview, PreviewReader
from comfyui_workflow.errors import LimitExceeded

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
RECEIVE_TIMEOUT_S = 0.5
"""A read of the websocket library blocks, and no token wakes it: so often it looks whether to go on."""
REOPEN_AFTER_S = 0.5
"""When an old socket of a client id closes, ComfyUI unregisters the new one with it: so the old one is closed
first, and given time."""
LONGEST_WAIT_S = 5.0

MAX_CPU_SHARE = 0.25
"""Of one processor, for all that one instance says: more of it is read later."""
BURST_S = 0.1
"""Of the processor, at once."""
LONGEST_PAUSE_S = 1.0
MOST_WAITING = 10_000
MOST_WAITING_BYTES = 8 * 1024 * 1024
"""Messages of one prompt that nobody has taken; of more, the oldest are dropped."""

_SOCKET_ERRORS = (websocket.WebSocketException, OSError, ValueError, OverflowError, MemoryError, LimitExceeded)
"""What an attempt at a socket may end with: lengths in the head of a refusal are read as they are."""

Listener = Callable[[Message], None]
Show = Callable[[Preview], None]


class Subscription:
    """The messages of one prompt, waiting to be taken; its previews are shown at once, or not at all."""

    def __init__(self, show: Show | None = None) -> None:
        self.began_at_s = time.monotonic()
        self.show = show
        self._messages: deque[tuple[Message, int]] = deque()
        self._waiting_bytes = 0
        self._is_woken = False
        self._arrived = threading.Condition()

    def put(self, message: Message, size_bytes: int = 0) -> None:
        """`progress_state` is a full picture each time, so only the last of several in a row is kept.
        `size_bytes`: of its text."""
        with self._arrived:
            is_state = message.get("type") == "progress_state"
            if is_state and self._messages and self._messages[-1][0].get("type") == "progress_state":
                self._waiting_bytes -= self._messages.pop()[1]
            self._messages.append((message, size_bytes))
            self._waiting_bytes += size_bytes
            while len(self._messages) > 1 and self._is_too_much():
                self._waiting_bytes -= self._messages.popleft()[1]
            self._arrived.notify()

    def _is_too_much(self) -> bool:
        return len(self._messages) > MOST_WAITING or self._waiting_bytes > MOST_WAITING_BYTES

    def wake(self) -> None:
        """Whoever waits for messages, or is about to, waits no longer. Returns at once."""
        with self._arrived:
            self._is_woken = True
            self._arrived.notify()

    def take(self, timeout_s: float) -> list[Message]:
        """All that has arrived; waits for the first one. Empty when the time is over, or when woken."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._messages or self._is_woken, timeout_s)
            self._is_woken = False
            taken = [message for message, _ in self._messages]
            self._messages.clear()
            self._waiting_bytes = 0
            return taken


class Throttle:
    """How much of a processor this thread takes: all threads of this process share one, and the messages of
    one instance must not keep the others waiting."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, worked_s: Callable[[], float] = time.thread_time
    ) -> None:
        self._clock = clock
        self._worked_s = worked_s
        self._begin()

    def pause_s(self) -> float:
        """How long to rest now; 0 or less as long as it is within its share."""
        worked_s = self._worked_s() - self._worked_before_s
        passed_s = self._clock() - self._began_s
        if worked_s <= BURST_S:
            return 0.0
        pause_s = worked_s / MAX_CPU_SHARE - passed_s
        self._begin()
        return min(pause_s, LONGEST_PAUSE_S)

    def _begin(self) -> None:
        self._began_s = self._clock()
        self._worked_before_s = self._worked_s()


class EventFeed:
    """Owns a thread that reads the socket and opens it again whenever it breaks."""

    def __init__(
        self,
        base_url: str,
        client_id: str,
        longest_wait_s: float = LONGEST_WAIT_S,
        *,
        limits: InstanceLimits | None = None,
        breaches: LimitBreaches | None = None,
    ) -> None:
        """`longest_wait_s`: between two tries to open it. `breaches` are shared with the client of the same
        instance, so that a limit broken here is told where it is asked next."""
        self._limits = limits or InstanceLimits()
        self._breaches = breaches or LimitBreaches()
        self._url = base_url.replace("http", "ws", 1) + f"/ws?clientId={client_id}"
        self.client_id = client_id
        self._longest_wait_s = longest_wait_s
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._listeners: list[Listener] = []
        self._previews = PreviewReader()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._renewing = threading.Event()
        self._connected = threading.Event()
        self._received_at_s = time.monotonic()
        self._times_connected = 0
        self._thread = threading.Thread(target=self._run, name=f"feed {base_url}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=RECEIVE_TIMEOUT_S + 1)

    def renew(self) -> None:
        """Close the socket and open a new one: the cure for a deaf one. Returns at once."""
        self._connected.clear()
        self._renewing.set()

    def wait_connected(self, timeout_s: float) -> bool:
        return self._connected.wait(timeout_s)

    @property
    def times_connected(self) -> int:
        """Grows with each new socket: ComfyUI may have been restarted in between."""
        return self._times_connected

    def silence_s(self) -> float:
        """Since anything at all was heard, about whatever prompt."""
        return time.monotonic() - self._received_at_s

    @contextmanager
    def subscribe(self, prompt_id: str, show: Show | None = None) -> Iterator[Subscription]:
        """To be entered before the prompt is submitted: its first messages may come before the answer.
        `show` gets its previews, from the thread of the feed, as `listen` says."""
        subscription = Subscription(show)
        with self._lock:
            self._subscriptions.setdefault(prompt_id, []).append(subscription)
        try:
            yield subscription
        finally:
            with self._lock:
                others = self._subscriptions[prompt_id]
                others.remove(subscription)
                if not others:
                    del self._subscriptions[prompt_id]

    @contextmanager
    def listen(self, on_message: Listener) -> Iterator[None]:
        """`on_message` gets every message, of whatever prompt or of none. The thread of the feed calls it, so it
        must return at once: a socket that nobody reads holds up ComfyUI's messages to everybody."""
        with self._lock:
            self._listeners.append(on_message)
        try:
            yield
        finally:
            with self._lock:
                self._listeners.remove(on_message)

    def _run(self) -> None:
        wait_s = REOPEN_AFTER_S
        while not self._closing.is_set():
            was_open = self._connect_and_read()
            wait_s = REOPEN_AFTER_S if was_open else min(2 * wait_s, self._longest_wait_s)
            self._closing.wait(wait_s)

    def _connect_and_read(self) -> bool:
        """Whether the socket could be opened. Not tried while a broken limit is remembered."""
        socket = BoundedSocket(self._limits.message_bytes, self._should_leave)
        try:
            self._breaches.refuse()
            socket.open(self._url, CONNECT_TIMEOUT_S)
        except _SOCKET_ERRORS as error:
            log.debug("no websocket to %s: %s", self._url, error)
            socket.drop()
            return False
        try:
            self._read(socket)
        except LimitExceeded as error:
            log.warning("%s: %s", self._url, self._breaches.record(error))
            socket.drop()
        except _SOCKET_ERRORS as error:
            log.debug("the websocket to %s broke: %s", self._url, error)
        finally:
            self._connected.clear()
            socket.close_gracefully(timeout_s=1)
        return True

    def _should_leave(self) -> bool:
        return self._closing.is_set() or self._renewing.is_set()

    def _read(self, socket: BoundedSocket) -> None:
        """Until it breaks, is renewed, or the feed is closed. The flags must be the first frame we send."""
        flags = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
        socket.send(json.dumps(flags))
        socket.settimeout(RECEIVE_TIMEOUT_S)
        self._renewing.clear()
        self._previews = PreviewReader()
        self._times_connected += 1
        self._connected.set()
        throttle = Throttle()
        while not self._should_leave():
            try:
                opcode, content = socket.receive()
            except websocket.WebSocketTimeoutException:
                continue
            if opcode == ABNF.OPCODE_CLOSE:
                return
            if opcode == ABNF.OPCODE_TEXT:
                self._received_at_s = time.monotonic()
                self._dispatch(content)
            elif opcode == ABNF.OPCODE_BINARY:
                self._received_at_s = time.monotonic()
                self._show(content)
            if (pause_s := throttle.pause_s()) > 0:
                self._closing.wait(pause_s)

    def _dispatch(self, frame: bytes) -> None:
        """Raises: LimitExceeded."""
        try:
            message = bounded_json(
                frame, self._limits.values, self._limits.message_bytes, "in a websocket message"
            )
        except ValueError:
            return
        if not isinstance(message, dict):
            return
        self._previews.observe(message)
        with self._lock:
            listeners = list(self._listeners)
        for subscription in self._subscribed(prompt_id_of(message)):
            subscription.put(message, len(frame))
        for on_message in listeners:
            on_message(message)

    def _show(self, frame: bytes) -> None:
        preview = self._previews.read(frame)
        if preview is None:
            return
        for subscription in self._subscribed(preview.place.prompt_id):
            if subscription.show is not None:
                subscription.show(preview)

    def _subscribed(self, prompt_id: str | None) -> list[Subscription]:
        with self._lock:
            return list(self._subscriptions.get(prompt_id or "", ()))
