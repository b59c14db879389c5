"""A websocket of the websocket-client library with a limit on the size of a message.

How it works. websocket-client reads a frame of any announced length, and all fragments of a message, before
the caller can check anything. So the length is checked here as soon as it is announced, and a large message
goes to a temporary file while it arrives. The library also loops without returning while the peer sends
frames that are no messages; here each of its reads checks `should_stop` first.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import websocket
from websocket._abnf import ABNF, frame_buffer

from comfyui_workflow.comfyui.large_content import MOST_IN_MEMORY_BYTES, Spool, in_memory
from comfyui_workflow.comfyui.limits import too_large_message, too_slow_message

HANDSHAKE_TIMEOUT_S = 15.0
MOST_PIECES = 256
"""Fragments of one message. ComfyUI sends every message in one frame."""
LARGE_MESSAGE_S = 60.0
"""Time limit for the rest of a message of which more than MOST_IN_MEMORY_BYTES are announced."""
_LONGEST_CONTROL_BYTES = 125
_PIECE_BYTES = 64 * 1024

Handler = Callable[[int, bytes], None]
"""Gets the opcode and the content of a message."""


class BoundedSocket(websocket.WebSocket):
    """Websocket with a limit on each message. `should_stop` is called before each read; while it returns
    True, reads time out."""

    def __init__(self, most_bytes: int, should_stop: Callable[[], bool]) -> None:
        # The validation is slow (Python, byte by byte), and the reader decodes the text anyway.
        super().__init__(skip_utf8_validation=True)
        self._should_stop = should_stop
        self._frames = _BoundedFrames(self._recv, most_bytes)
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

    def receive(self, handle: Handler) -> bool:
        """Passes the next message, ping or pong to `handle`, which must return at once and keep no large
        content: while it has that, no other is read into memory. Returns False if the peer closed the socket.
        Raises: LimitExceeded, StoreError; websocket.WebSocketException, OSError."""
        opcode, frame = self.recv_data_frame(control_frame=True)
        if opcode == ABNF.OPCODE_CLOSE:
            return False
        spool = self._frames.take_spool() if opcode < ABNF.OPCODE_CLOSE else None
        if spool is None:
            handle(opcode, frame.data)
        else:
            with in_memory:
                handle(opcode, spool.read())
        return True

    def drop(self) -> None:
        """Closes the connection at once, without a closing handshake."""
        if (spool := self._frames.take_spool()) is not None:
            spool.close()
        self.shutdown()  # type: ignore[no-untyped-call]

    def close_gracefully(self, timeout_s: float) -> None:
        """Closes with a handshake, within the timeout."""
        until_s = time.monotonic() + timeout_s
        self._should_stop = lambda: time.monotonic() >= until_s
        self.close(timeout=timeout_s)
        self.drop()

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
    """Reads the frames. The content of a message that is large, or in fragments, is collected in a spool: the
    frames of such a message are empty."""

    def __init__(self, receive: Callable[[int], bytes], most_bytes: int) -> None:
        super().__init__(receive, True)
        self._most_bytes = most_bytes
        self._message_bytes = self._pieces = 0
        self._spool: Spool | None = None
        self._is_spooled_frame = False
        self._due_at_s: float | None = None

    def take_spool(self) -> Spool | None:
        """Returns the collected content of the message that was read last, if any. The caller closes it."""
        spool, self._spool = self._spool, None
        return spool

    def recv_frame(self) -> ABNF:
        """Raises: LimitExceeded before any content is read; StoreError."""
        frame: ABNF = super().recv_frame()
        self._is_spooled_frame = False
        if frame.fin and frame.opcode < ABNF.OPCODE_CLOSE:
            self._message_bytes = self._pieces = 0
            self._due_at_s = None
        return frame

    def recv_length(self) -> None:
        super().recv_length()
        if self.header is None or self.length is None:
            raise websocket.WebSocketProtocolException("a frame without a length")
        is_last, _, _, _, opcode, is_masked, _ = self.header
        if is_masked:
            raise websocket.WebSocketProtocolException("a server masks no frame")
        if opcode >= ABNF.OPCODE_CLOSE:
            if self.length > _LONGEST_CONTROL_BYTES:
                raise websocket.WebSocketProtocolException("a control frame is too long")
            return
        self._message_bytes += self.length
        self._pieces += 1
        if self._message_bytes > self._most_bytes or self._pieces > MOST_PIECES:
            raise too_large_message(self._most_bytes)
        is_large = self._message_bytes > MOST_IN_MEMORY_BYTES
        if is_large and self._due_at_s is None:
            self._due_at_s = time.monotonic() + LARGE_MESSAGE_S
        if is_large or not is_last or self._spool is not None:
            self._spool = self._spool or Spool()
            self._is_spooled_frame = True

    def recv_strict(self, bufsize: int) -> bytes:
        """Returns `bufsize` bytes; nothing for the content of a frame that is collected. May be repeated
        after a timeout."""
        if self._is_spooled_frame and self._spool is not None:
            while (left := self._message_bytes - self._spool.size_bytes) > 0:
                self._spool.write(self.recv(min(left, _PIECE_BYTES)))
            return b""
        received: bytes = super().recv_strict(bufsize)
        return received

    def check_time(self) -> None:
        """Raises: LimitExceeded."""
        if self._due_at_s is not None and time.monotonic() > self._due_at_s:
            raise too_slow_message(LARGE_MESSAGE_S)
