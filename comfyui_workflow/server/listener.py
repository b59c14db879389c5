"""Listening socket of the HTTP server, and the limits of its connections.

How it works. The number of connections is limited in total and per client address. If a new connection
exceeds a limit, the connections of least use are closed (`access/connection_limits.py`). A sweep about once a
second closes the connections that have exceeded their time limit. If the process has no file descriptors
left, accepting pauses until the next sweep.
"""

import errno
import logging
import time
from collections import Counter, deque
from collections.abc import Iterator, MutableMapping
from typing import Any

from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from comfyui_workflow.access.connection_limits import (
    Candidate,
    ConnectionLimits,
    connections_to_close,
)
from comfyui_workflow.server.body_limits import BodyLimits, RefusingParser
from comfyui_workflow.server.channel import TimedChannel
from comfyui_workflow.server.descriptors import open_files_limit
from comfyui_workflow.server.event_loop import EventLoop

log = logging.getLogger(__name__)

ACCEPTED_AT_ONCE = 16
CLOSED_AT_ONCE = 1 / 64
"""Share of the allowed connections that is closed together: the selection has to check every connection."""
WORK_AT_ONCE = 300
"""Work of one sweep step. The unit is the check of one connection, a few microseconds."""
CUT_WORK = 15
"""Work of closing one connection, in the same unit."""
OTHER_FILES = 256
"""Descriptors reserved for records, instances and uploads. On small systems it is half of all."""
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Listener(TcpWSGIServer):  # type: ignore[misc]
    """Accepts connections and enforces their limits. Only the thread of the event loop uses it."""

    def __init__(
        self,
        app: object,
        options: Adjustments,
        handlers: MutableMapping[int, Any],
        refusals: BodyLimits,
        limits: ConnectionLimits,
    ) -> None:
        """Binds the port. Raises: OSError if the port is not available."""

        class Parser(RefusingParser):
            body_limits = refusals

        class Channel(TimedChannel):
            parser_class = Parser

        self.channel_class = Channel
        self.loop = EventLoop(handlers, self.sweep)
        self._limits = limits
        self._most = min(limits.most, _room_for_connections())
        self._by_address: Counter[str] = Counter()
        self._is_paused = False
        dispatcher = ThreadedTaskDispatcher()
        super().__init__(app, handlers, dispatcher=dispatcher, adj=options)
        dispatcher.set_thread_count(options.threads)

    def run(self) -> None:
        """Runs the event loop until every socket is closed."""
        self.loop.run()

    def readable(self) -> bool:
        return bool(self.accepting) and not self._is_paused

    def handle_accept(self) -> None:
        """Accepts several connections at once, so that many new clients need few loop iterations."""
        for _ in range(ACCEPTED_AT_ONCE):
            if not self._accept_one():
                return

    def opened(self, channel: TimedChannel) -> None:
        """Registers a new connection.

        If a limit is exceeded, closes others, or the new one if none can be closed."""
        self._by_address[channel.address] += 1
        is_crowd = self._by_address[channel.address] > self._most_from(channel.address)
        is_over_limit = is_crowd or len(self.active_channels) > self._most
        if is_over_limit and not self._make_room(channel, channel.address if is_crowd else None):
            channel.cut()

    def closed(self, channel: TimedChannel) -> None:
        self._by_address[channel.address] -= 1
        if not self._by_address[channel.address]:
            del self._by_address[channel.address]

    def sweep(self) -> Iterator[None]:
        """Closes connections that have exceeded their time limit, in steps of a few milliseconds."""
        if self._is_paused:
            self._is_paused = False
            self.loop.changed(self)
        work = 0
        for channel in list(self.active_channels.values()):
            is_late = channel.connected and channel.is_late(self._limits, time.monotonic())
            if is_late:
                channel.cut()
            work += CUT_WORK if is_late else 1
            if work >= WORK_AT_ONCE:
                work = 0
                yield

    def _accept_one(self) -> bool:
        """Accepts one connection. False if none is waiting, or if none can be accepted now."""
        try:
            accepted = self.accept()
        except OSError as error:
            if error.errno in OUT_OF_FILES and not self._make_room(None, None):
                log.warning("No connection can be accepted for now: %s", error.strerror)
                self._is_paused = True
            return False
        if accepted is None:
            return False
        connection, address = accepted
        try:
            self.set_socket_options(connection)
        except OSError:  # the client has closed it already
            connection.close()
        else:
            self.channel_class(self, connection, self.fix_addr(address), self.adj, map=self._map)
        return True

    def _most_from(self, address: str) -> int:
        """Returns the maximum number of connections from an address: half of the total.

        This machine has no such limit: its user may have many pages open, or a proxy may run in front of this
        server."""
        is_here = address == "::1" or address.startswith("127.")
        return self._most if is_here else max(1, self._most // 2)

    def _make_room(self, new: TimedChannel | None, address: str | None) -> bool:
        """Closes the connections of least use, of one address or of any. False if there were none."""
        now_s = time.monotonic()
        deque(self.sweep(), maxlen=0)
        candidates = [
            Candidate(connection=each, address=each.address, stage=each.stage(), since_s=each.clock.since_s)
            for each in self.active_channels.values()
            if each is not new and address in (None, each.address)
        ]
        chosen = connections_to_close(candidates, max(1, int(self._most * CLOSED_AT_ONCE)), now_s)
        for each in chosen:
            each.cut()
        return bool(chosen)


def _room_for_connections() -> int:
    """Returns how many connections fit into the limit of open files, two descriptors each.

    A request may need a second file, for a body or a response that is too large for memory."""
    files = open_files_limit()
    return max(1, (files - min(OTHER_FILES, files // 2)) // 2)
