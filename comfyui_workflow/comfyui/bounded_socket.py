"""A websocket of the websocket-client library with a limit on the size of a message.

How it works. websocket-client reads a frame of any announced length, and all fragments of a message, before
the caller can check anything. So the length is checked here as soon as it is announced. The library also
loops without returning while the peer sends frames that are no messages; here each of its reads checks
`should_stop` first.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import websocket
from websocket._abnf import ABNF, frame_buffer

from comfyui_workflow.comfyui.limits import too_large_message, too_slow_message

HANDSHAKE_TIMEOUT_S = 15.0
MOST_PIECES = 256
"""Fragments of one message: each new fragment copies all earlier ones. ComfyUI sends every message in one
frame."""
LARGE_BYTES = 2 * 1024 * 1024
LARGE_MESSAGE_S = 60.0
"""Time limit for a message of more than LARGE_BYTES, counted from the acquisition of the slot."""
_LONGEST_CONTROL_BYTES = 125
_STOP_CHECK_S = 0.2
_large_message_slot = threading.BoundedSemaphore(1)
"""Only one large message at a time is in memory until it is read, for all instances together."""


class BoundedSocket(websocket.WebSocket):
    """Websocket with a limit on each message. `should_stop` is called before each read; while it returns
    True, reads time out."""

    def __init__(self, most_bytes: int, should_stop: Callable[[], bool]) -> None:
        # The validation is slow (Python, byte by byte), and the reader decodes the text anyway.
        super().__init__(skip_utf8_validation=True)
        self._should_stop = should_stop
        self._frames = _BoundedFrames(self._recv, most_bytes, self._asks_to_stop)
        self.frame_buffer = self._frames
        self._is_open = False

    def open(self, url: str, timeout_s: float, headers: Mapping[str, str] | None = None) -> None:
        """Connects and makes the handshake, with these headers. Raises: websocket.WebSocketException,
        OSError, ValueError."""
        self.settimeout(timeout_s)
        with self._cut_after(HANDSHAKE_TIMEOUT_S):
            self.connect(  # type: ignore[no-untyped-call]
                url,
                header=dict(headers or {}),
                suppress_origin=True,
                redirect_limit=0,  # a redirect could lead out of the tunnel, to any address
            )
        self._is_open = True

    def receive(self) -> tuple[int, bytes]:
        """Returns the opcode and the content of the next message, ping or pong; opcode CLOSE if the peer
        closed the socket. Raises: LimitExceeded; websocket.WebSocketException, OSError."""
        opcode, frame = self.recv_data_frame(control_frame=True)
        return (opcode, b"") if opcode == ABNF.OPCODE_CLOSE else (opcode, frame.data)

    def drop(self) -> None:
        """Closes the connection at once, without a closing handshake."""
        self._frames.release_slot()
        self.shutdown()  # type: ignore[no-untyped-call]

    def close_gracefully(self, timeout_s: float) -> None:
        """Closes with a handshake, within the timeout."""
        until_s = time.monotonic() + timeout_s
        self._should_stop = lambda: time.monotonic() >= until_s
        self.close(timeout=timeout_s)
        self.drop()

    def _asks_to_stop(self) -> bool:
        return self._should_stop()

    def _recv(self, bufsize: int) -> bytes:
        if self._is_open and self._should_stop():
            raise websocket.WebSocketTimeoutException("asked to stop")
        self._frames.check_time()
        received: bytes = super()._recv(bufsize)  # type: ignore[no-untyped-call]
        return received

    @contextmanager
    def _cut_after(self, timeout_s: float) -> Iterator[None]:
        """Time limit for the whole handshake: the library reads it byte by byte, each with a timeout of its
        own."""
        timer = threading.Timer(timeout_s, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _cut(self) -> None:
        sock = self.sock
        if sock is not None:
            try:
                sock.shutdown(2)
            except OSError:  # not connected yet, or closed already
                return


class _BoundedFrames(frame_buffer):
    def __init__(
        self, receive: Callable[[int], bytes], most_bytes: int, should_stop: Callable[[], bool]
    ) -> None:
        super().__init__(receive, True)
        self._most_bytes = most_bytes
        self._should_stop = should_stop
        self._message_bytes = self._pieces = 0
        self._slot_until_s: float | None = None

    def recv_frame(self) -> ABNF:
        """Raises: LimitExceeded before any content is read."""
        if not self._message_bytes:
            self.release_slot()
        frame: ABNF = super().recv_frame()
        if frame.fin and frame.opcode < ABNF.OPCODE_CLOSE:
            self._message_bytes = self._pieces = 0
        return frame

    def recv_length(self) -> None:
        super().recv_length()
        if self.header is None or self.length is None:
            raise websocket.WebSocketProtocolException("a frame without a length")
        if self.header[4] >= ABNF.OPCODE_CLOSE:
            if self.length > _LONGEST_CONTROL_BYTES:
                raise websocket.WebSocketProtocolException("a control frame is too long")
            return
        self._message_bytes += self.length
        self._pieces += 1
        if self._message_bytes > self._most_bytes or self._pieces > MOST_PIECES:
            raise too_large_message(self._most_bytes)

    def recv_strict(self, bufsize: int) -> bytes:
        if self._message_bytes > LARGE_BYTES:
            self._acquire_slot()
        received: bytes = super().recv_strict(bufsize)
        return received

    def check_time(self) -> None:
        """Raises: LimitExceeded."""
        if self._slot_until_s is not None and time.monotonic() > self._slot_until_s:
            raise too_slow_message(LARGE_MESSAGE_S)

    def release_slot(self) -> None:
        """Idempotent."""
        if self._slot_until_s is not None:
            self._slot_until_s = None
            _large_message_slot.release()

    def _acquire_slot(self) -> None:
        """Raises: websocket.WebSocketTimeoutException when asked to stop; the read may be repeated."""
        while self._slot_until_s is None:
            if _large_message_slot.acquire(timeout=_STOP_CHECK_S):
                self._slot_until_s = time.monotonic() + LARGE_MESSAGE_S
            elif self._should_stop():
                raise websocket.WebSocketTimeoutException("asked to stop")
