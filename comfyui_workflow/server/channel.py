"""One client's connection to the HTTP server, with a clock: waitress' channel, and how far it has come.

It takes up one request at a time. What a client sends ahead (pipelining) stays in the kernel, but for the
piece that was read last, until the answer before it is with the client: so neither answers nor open files
pile up for a client that asks and does not read.
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
"""A piece is copied before the kernel takes as much of it as it has room for."""


class ChannelListener(Protocol):
    """The `Listener` of a channel; waitress calls it `server`."""

    loop: EventLoop

    def opened(self, channel: "TimedChannel") -> None: ...

    def pull_trigger(self) -> None: ...

    def add_task(self, channel: "TimedChannel") -> None: ...

    def closed(self, channel: "TimedChannel") -> None: ...


class TimedChannel(RefusingChannel):
    """Belongs to the loop's thread, but for `service`, `write_soon` and `hold_answer`: workers call these."""

    server: ChannelListener
    request: RefusingParser | None
    sendbuf_len: int
    _left_over = b""
    _is_silent = True
    _is_full = False
    _held_until_s: float | None = None

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
    def is_held(self) -> bool:
        return self._held_until_s is not None

    def is_late(self, limits: ConnectionLimits, now_s: float) -> bool:
        """Whether the client has used up its time. Also ends what was held back until now."""
        if self._held_until_s is not None and now_s >= self._held_until_s:
            self._held_until_s = None
            self.server.loop.changed(self)
        seen = Observed(stage=self.stage(), part=self._request_count, moved_bytes=self._moved_bytes())
        return self.clock.is_over(seen, limits, now_s)

    def stage(self) -> Stage:
        if self.is_lingering or self.is_held:
            return Stage.REFUSED
        if self.total_outbufs_len:
            return Stage.SENDING
        if self.requests or self.will_close or self.close_when_flushed:
            return Stage.WORKING
        if self.request is not None:
            return Stage.BODY if self.request.headers_finished else Stage.HEAD
        return Stage.SILENT if self._is_silent else Stage.IDLE

    def cut(self) -> None:
        """Close it now. A client whose request is incomplete is told why, if that needs no waiting."""
        is_incomplete = self.stage() in (Stage.HEAD, Stage.BODY)
        if is_incomplete:
            with suppress(OSError):
                self.socket.send(TOO_SLOW)
        self.is_refused = False  # no lingering
        self.handle_close()

    def hold_answer(self, for_s: float) -> None:
        """Keep back the answer of this request for a while, without a thread that waits."""
        self._held_until_s = time.monotonic() + for_s

    def received(self, data: bytes) -> bool:
        self._is_silent = False
        if self.is_lingering:
            return False
        with self.requests_lock:
            if self.will_close or self.close_when_flushed:
                return False
            while data and not self.requests:
                data = data[self._parse(data) :]
            self._left_over = data
        return True

    def readable(self) -> bool:
        """Asked when it is idle again: then the next request may be there already."""
        if self._left_over and super().readable():
            data, self._left_over = self._left_over, b""
            self.received(data)
        return bool(super().readable())

    def writable(self) -> bool:
        return not self.is_held and bool(super().writable())

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
        self._tell_loop()

    def write_soon(self, data: Any) -> int:
        count = int(super().write_soon(data))
        if self.total_outbufs_len:
            self._tell_loop()
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
        """A worker does not try what the loop waits for: each try copies a piece of the answer."""
        if self.is_held or (self._is_full and not do_close):
            return False
        return bool(super()._flush_some(do_close=do_close))

    def _tell_loop(self) -> None:
        self.server.loop.changed(self)
        with suppress(OSError):  # the loop has ended meanwhile
            self.server.pull_trigger()

    def _parse(self, data: bytes) -> int:
        """How much of it belongs to the request that is being read."""
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
        if self.total_outbufs_len:
            return self._sent_bytes - _unacknowledged_bytes(self.socket)
        return self.request.body_bytes_received if self.request is not None else 0


def _unacknowledged_bytes(connected: Any) -> int:
    """In the kernel, on their way to the client: what it has taken is what it has acknowledged."""
    try:
        found = fcntl.ioctl(connected.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 0
    return int(struct.unpack("i", found)[0])
