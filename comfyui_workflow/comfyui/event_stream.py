"""The websocket to one ComfyUI; dispatches its messages by prompt.

How it works. A thread reads the socket, and reopens it when it breaks. The messages of a prompt go to its
subscriptions. They only speed things up, and are never the source of truth: the socket can become deaf (open,
but it receives nothing), and ComfyUI replays nothing. Everything that a run depends on is read from `/queue`
and `/history`.
"""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import websocket
from websocket import ABNF

from comfyui_workflow.comfyui.bounded_socket import BoundedSocket
from comfyui_workflow.comfyui.http_responses import bounded_json
from comfyui_workflow.comfyui.limits import InstanceLimits, LimitBreaches
from comfyui_workflow.comfyui.messages import Message, prompt_id_of, says_ended
from comfyui_workflow.comfyui.previews import Preview, PreviewReader
from comfyui_workflow.errors import LimitExceeded, StoreError

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
RECEIVE_TIMEOUT_S = 0.5
"""A read of the websocket library blocks and cannot be woken. So it ends after this time, to check for a
stop."""
REOPEN_AFTER_S = 0.5
"""When an old socket of a client id closes, ComfyUI unregisters the new one with it. So the old one is closed
first, and ComfyUI gets this time to notice it."""
LONGEST_WAIT_S = 5.0

MAX_CPU_SHARE = 0.25
"""Share of one processor for the messages of one instance; further messages are read later."""
BURST_S = 0.1
"""Processor time that may be used without a pause."""
LONGEST_PAUSE_S = 1.0
MOST_WAITING = 10_000
MOST_WAITING_BYTES = 8 * 1024 * 1024
"""Messages of one prompt that were not taken yet. Above these limits, the oldest are dropped."""

_SOCKET_ERRORS = (
    websocket.WebSocketException,
    OSError,
    ValueError,
    OverflowError,
    MemoryError,
    LimitExceeded,
)
"""Errors of an attempt to open the socket. Some come from a refused handshake: its header contains lengths
that the library parses unchecked."""

Listener = Callable[[Message], None]
Show = Callable[[Preview], None]


class Subscription:
    """Queue of the messages of one prompt. Previews are not queued: they are passed to `show` at once, or
    dropped."""

    def __init__(self, show: Show | None = None) -> None:
        self.began_at_s = time.monotonic()
        self.show = show
        self._messages: deque[tuple[Message, int]] = deque()
        self._waiting_bytes = 0
        self._is_woken = False
        self._has_ended = False
        self._arrived = threading.Condition()

    def put(self, message: Message, size_bytes: int = 0) -> None:
        """Adds a message of `size_bytes` of text. Each `progress_state` contains the full state, so only the
        last of several in a row is kept."""
        with self._arrived:
            self._has_ended = self._has_ended or says_ended(message)
            is_state = message.get("type") == "progress_state"
            if is_state and self._messages and self._messages[-1][0].get("type") == "progress_state":
                self._waiting_bytes -= self._messages.pop()[1]
            self._messages.append((message, size_bytes))
            self._waiting_bytes += size_bytes
            while len(self._messages) > 1 and self._is_too_much():
                self._waiting_bytes -= self._messages.popleft()[1]
            self._arrived.notify_all()

    def _is_too_much(self) -> bool:
        return len(self._messages) > MOST_WAITING or self._waiting_bytes > MOST_WAITING_BYTES

    def wait_ended(self, timeout_s: float) -> bool:
        """Waits for the message that the prompt has ended, which comes after all its pictures. Returns False
        after the timeout."""
        with self._arrived:
            return self._arrived.wait_for(lambda: self._has_ended, timeout_s)

    def wake(self) -> None:
        """Ends the current `take`, or the next one if none waits. Returns at once."""
        with self._arrived:
            self._is_woken = True
            self._arrived.notify()

    def take(self, timeout_s: float) -> list[Message]:
        """Waits for the first message, then returns all that have arrived. Empty after the timeout or
        `wake`."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._messages or self._is_woken, timeout_s)
            self._is_woken = False
            taken = [message for message, _ in self._messages]
            self._messages.clear()
            self._waiting_bytes = 0
            return taken


class Throttle:
    """Limits the processor time of the current thread: all threads of this process share one processor, and
    the messages of one instance must not delay the others."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, worked_s: Callable[[], float] = time.thread_time
    ) -> None:
        self._clock = clock
        self._worked_s = worked_s
        self._begin()

    def pause_s(self) -> float:
        """Returns how long to pause now; 0 or less while the thread is within its share."""
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
    """Owns a thread that reads the socket, and reopens it whenever it breaks."""

    def __init__(
        self,
        base_url: str,
        client_id: str,
        longest_wait_s: float = LONGEST_WAIT_S,
        *,
        limits: InstanceLimits | None = None,
        breaches: LimitBreaches | None = None,
        login: Callable[[], Mapping[str, str]] = dict,
        on_message: Listener | None = None,
    ) -> None:
        """`longest_wait_s`: maximum pause between two attempts to open the socket. `login` returns headers
        for the handshake. `breaches` are shared with the HTTP client of the same instance, so that its next
        request reports a limit that was exceeded here. `on_message`: as for `listen`, from the start."""
        self._limits = limits or InstanceLimits()
        self._breaches = breaches or LimitBreaches()
        self._login = login
        self._url = base_url.replace("http", "ws", 1) + f"/ws?clientId={client_id}"
        self.client_id = client_id
        self._longest_wait_s = longest_wait_s
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._listeners: list[Listener] = [] if on_message is None else [on_message]
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
        """Closes the socket and opens a new one, in case it is deaf. Returns at once."""
        self._connected.clear()
        self._renewing.set()

    def wait_connected(self, timeout_s: float) -> bool:
        return self._connected.wait(timeout_s)

    @property
    def times_connected(self) -> int:
        """Grows with each new socket. ComfyUI may have been restarted in between."""
        return self._times_connected

    def silence_s(self) -> float:
        """Returns the seconds since the last message, whatever its prompt."""
        return time.monotonic() - self._received_at_s

    @contextmanager
    def subscribe(self, prompt_id: str, show: Show | None = None) -> Iterator[Subscription]:
        """Yields the subscription of one prompt. To be entered before the prompt is submitted: its first
        messages may arrive before the response. `show` gets the previews, in the thread of the feed: it must
        return at once, see `listen`."""
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
        """Passes every message to `on_message`, with or without a prompt. It is called in the thread of the
        feed and must return at once: a socket that is not read delays ComfyUI's messages to every client."""
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
        """Returns True if the socket could be opened. Does not try while an exceeded limit is remembered."""
        socket = BoundedSocket(self._limits.message_bytes, self._should_leave)
        try:
            self._breaches.refuse()
            socket.open(self._url, CONNECT_TIMEOUT_S, self._login())
        except _SOCKET_ERRORS as error:
            log.debug("no websocket to %s: %s", self._url, error)
            socket.drop()
            return False
        try:
            self._read(socket)
        except LimitExceeded as error:
            log.warning("%s: %s", self._url, self._breaches.record(error))
            socket.drop()
        except StoreError as error:
            log.warning("%s: %s", self._url, error)
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
        """Reads until the socket breaks, is renewed, or the feed is closed. ComfyUI requires that the feature
        flags are the first frame of the client."""
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
                if not socket.receive(self._handle):
                    return
            except websocket.WebSocketTimeoutException:
                continue
            if (pause_s := throttle.pause_s()) > 0:
                self._closing.wait(pause_s)

    def _handle(self, opcode: int, content: bytes) -> None:
        if opcode == ABNF.OPCODE_TEXT:
            self._received_at_s = time.monotonic()
            self._dispatch(content)
        elif opcode == ABNF.OPCODE_BINARY:
            self._received_at_s = time.monotonic()
            self._show(content)

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
