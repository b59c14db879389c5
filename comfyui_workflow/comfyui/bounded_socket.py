"""A websocket of websocket-client that takes no message of more than so many bytes.

websocket-client reads a frame of any announced length, and every piece of a message in pieces, before anybody
can look at it: so the length is judged when it was announced. It also loops, without coming back, for as long
as the peer sends something that is no message; here each of its reads asks whether to go on.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import websocket
from websocket._abnf import ABNF, frame_buffer

from comfyui_workflow.comfyui.limits import too_large_message, too_slow_message

HANDSHAKE_TIMEOUT_S = 15.0
MOST_PIECES = 256
"""Of one message: joining them copies the beginning again for each. ComfyUI sends every message in one."""
LARGE_BYTES = 2 * 1024 * 1024
LARGE_MESSAGE_S = 60.0
"""For a message of more than that, from when its turn has come."""
_LONGEST_CONTROL_BYTES = 125
_STOP_CHECK_S = 0.2
_large_message_slot = threading.BoundedSemaphore(1)
"""Large messages are in memory one at a time until they have been read, however many instances there are."""


class BoundedSocket(websocket.WebSocket):
    """`should_stop` is asked before each read; while it holds, reads time out."""

    def __init__(self, most_bytes: int, should_stop: Callable[[], bool]) -> None:
        super().__init__(skip_utf8_validation=True)  # in Python, byte by byte; who reads a text decodes it
        self._should_stop = should_stop
        self._frames = _BoundedFrames(self._recv, most_bytes, self._asks_to_stop)
        self.frame_buffer = self._frames
        self._is_open = False

    def open(self, url: str, timeout_s: float) -> None:
        """Raises: websocket.WebSocketException, OSError, ValueError."""
        self.settimeout(timeout_s)
        with self._cut_after(HANDSHAKE_TIMEOUT_S):
            self.connect(  # type: ignore[no-untyped-call]
                url,
                suppress_origin=True,
                redirect_limit=0,  # it would lead out of the tunnel, to wherever the instance says
            )
        self._is_open = True

    def receive(self) -> tuple[int, bytes]:
        """The opcode and the content of the next message, ping or pong; of opcode CLOSE when it was closed.
        Raises: LimitExceeded; websocket.WebSocketException, OSError."""
        opcode, frame = self.recv_data_frame(control_frame=True)
        return (opcode, b"") if opcode == ABNF.OPCODE_CLOSE else (opcode, frame.data)

    def drop(self) -> None:
        """Hangs up at once."""
        self._frames.release_slot()
        self.shutdown()  # type: ignore[no-untyped-call]

    def close_gracefully(self, timeout_s: float) -> None:
        """Closes politely, within the time."""
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
        """The handshake is read byte by byte, each with a timeout of its own."""
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
            except OSError:  # not connected, or not any more
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
        """Raises: LimitExceeded, before anything of the content is read."""
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
        """Raises: websocket.WebSocketTimeoutException, to be called again."""
        while self._slot_until_s is None:
            if _large_message_slot.acquire(timeout=_STOP_CHECK_S):
                self._slot_until_s = time.monotonic() + LARGE_MESSAGE_S
            elif self._should_stop():
                raise websocket.WebSocketTimeoutException("asked to stop")
