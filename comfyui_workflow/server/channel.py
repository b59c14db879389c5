"""One client connection of the HTTP server: waitress' channel, with progress tracking for timeouts.

How it works. The connection handles one request at a time. Pipelined requests stay in the buffer of the
kernel, except for the last piece that was read, until the client has the previous response. So neither
responses nor open files accumulate for a client that sends requests but does not read the responses.
"""

import fcntl
import struct
import termios
import time
from contextlib import suppress
from typing import Any, Protocol

from comfyui_workflow.access.connection_limits import (
    TOO_SLOW,
    Clock,
    ConnectionLimits,
    Observed,
    Stage,
)
from comfyui_workflow.server.body_limits import RefusingChannel, RefusingParser
from comfyui_workflow.server.event_loop import EventLoop

SENT_AT_ONCE_BYTES = 256 * 1024
"""Maximum size of one `send`: the piece is copied first, and the kernel then takes only what fits."""


class ChannelListener(Protocol):
    """Interface of `Listener` to its connections; waitress calls it `server`."""

    loop: EventLoop

    def opened(self, channel: "TimedChannel") -> None: ...

    def pull_trigger(self) -> None: ...

    def add_task(self, channel: "TimedChannel") -> None: ...

    def closed(self, channel: "TimedChannel") -> None: ...


class TimedChannel(RefusingChannel):
    """Client connection with timeouts.

    Only the thread of the event loop uses it, except `service`, `write_soon` and `delay_response`: worker
    threads call these."""

    server: ChannelListener
    request: RefusingParser | None
    sendbuf_len: int
    _unparsed = b""
    _is_silent = True
    _is_full = False
    _delayed_until_s: float | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.clock = Clock(since_s=time.monotonic())
        self._request_count = 0
        self._sent_bytes = 0
        super().__init__(*arguments, **options)
        self.sendbuf_len = min(self.sendbuf_len, SENT_AT_ONCE_BYTES)
        self.server.opened(self)

    @property
    def address(self) -> str:
        return str(self.addr[0])

    @property
    def is_delayed(self) -> bool:
        return self._delayed_until_s is not None

    def is_late(self, limits: ConnectionLimits, now_s: float) -> bool:
        """True if the client has exceeded its time limit. Also releases a delayed response that is due."""
        if self._delayed_until_s is not None and now_s >= self._delayed_until_s:
            self._delayed_until_s = None
            self.server.loop.changed(self)
        observed = Observed(stage=self.stage(), part=self._request_count, moved_bytes=self._moved_bytes())
        return self.clock.is_over(observed, limits, now_s)

    def stage(self) -> Stage:
        """Returns the current state of the connection."""
        if self.is_lingering or self.is_delayed:
            return Stage.REFUSED
        if self.total_outbufs_len:
            return Stage.SENDING
        if self.requests or self.will_close or self.close_when_flushed:
            return Stage.WORKING
        if self.request is not None:
            return Stage.BODY if self.request.headers_finished else Stage.HEAD
        return Stage.SILENT if self._is_silent else Stage.IDLE

    def cut(self) -> None:
        """Closes the connection now.

        A client with an incomplete request gets status 408, if that can be sent without blocking."""
        is_incomplete = self.stage() in (Stage.HEAD, Stage.BODY)
        if is_incomplete:
            with suppress(OSError):
                self.socket.send(TOO_SLOW)
        self.is_refused = False  # no lingering
        self.handle_close()

    def delay_response(self, for_s: float) -> None:
        """Delays the response to this request by `for_s` seconds, without blocking a thread."""
        self._delayed_until_s = time.monotonic() + for_s

    def received(self, data: bytes) -> bool:
        self._is_silent = False
        if self.is_lingering:
            return False
        with self.requests_lock:
            if self.will_close or self.close_when_flushed:
                return False
            while data and not self.requests:
                data = data[self._parse(data) :]
            self._unparsed = data
        return True

    def readable(self) -> bool:
        """True if the loop should wait for data.

        Parses a request that was received together with the last one."""
        if self._unparsed and super().readable():
            data, self._unparsed = self._unparsed, b""
            self.received(data)
        return bool(super().readable())

    def writable(self) -> bool:
        return not self.is_delayed and bool(super().writable())

    def handle_write(self) -> None:
        self._is_full = False
        super().handle_write()

    def send(self, data: bytes, do_close: bool = True) -> int:
        sent = int(super().send(data, do_close))
        self._sent_bytes += sent
        self._is_full = sent < len(data)
        return sent

    def service(self) -> None:
        self._request_count += 1
        super().service()
        self._notify_loop()

    def write_soon(self, data: Any) -> int:
        count = int(super().write_soon(data))
        if self.total_outbufs_len:
            self._notify_loop()
        return count

    def add_channel(self, map: Any = None) -> None:
        super().add_channel(map)
        self.server.loop.changed(self)

    def del_channel(self, map: Any = None) -> None:
        if self._fileno is not None:
            self.server.loop.forget(self._fileno)
            self.server.closed(self)
        super().del_channel(map)

    def _flush_some(self, do_close: bool = True) -> bool:
        """Sends a piece of the response.

        A worker does not try while the socket is full and the loop waits for it: each try copies a piece."""
        if self.is_delayed or (self._is_full and not do_close):
            return False
        return bool(super()._flush_some(do_close=do_close))

    def _notify_loop(self) -> None:
        self.server.loop.changed(self)
        with suppress(OSError):  # the loop has ended
            self.server.pull_trigger()

    def _parse(self, data: bytes) -> int:
        """Parses data of the current request, and returns the number of bytes used."""
        if self.request is None:
            self.request = self.parser_class(self.adj)
        request = self.request
        used = int(request.received(data))
        if request.completed:
            self.request, self.sent_continue = None, False
            if not request.empty:
                self.requests.append(request)
                self.server.add_task(self)
        elif request.expect_continue and request.headers_finished and not self.sent_continue:
            self.send_continue()
        return used

    def _moved_bytes(self) -> int:
        """Returns the number of transferred bytes: acknowledged response bytes, or received body bytes."""
        if self.total_outbufs_len:
            return self._sent_bytes - _unacknowledged_bytes(self.socket)
        return self.request.body_bytes_received if self.request is not None else 0


def _unacknowledged_bytes(connected: Any) -> int:
    """Returns the number of bytes in the send buffer of the kernel that the client has not acknowledged."""
    try:
        found = fcntl.ioctl(connected.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 0
    return int(struct.unpack("i", found)[0])
