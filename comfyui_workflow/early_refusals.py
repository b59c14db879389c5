"""Bodies that are too large, refused by what their heads say: waitress itself reads a whole body before the
application is asked. It is the application that words the refusal; it is asked without the body."""

import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import BaseWSGIServer
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import RequestEntityTooLarge

LINGER_S = 30.0
"""Nobody is waited for longer who does not hear."""


@dataclass(frozen=True, kw_only=True)
class BodyLimit:
    most_bytes: int
    message: str


FindLimit = Callable[[str], BodyLimit]
"""Of a path."""


def limit_bodies(servers: Iterable[object], find_limit: FindLimit) -> None:
    """Of those among them that listen; before the first connection is accepted."""

    class Parser(_Parser):
        limit_of = staticmethod(find_limit)

    class Channel(_Channel):
        parser_class = Parser

    for server in servers:
        if isinstance(server, BaseWSGIServer):
            server.channel_class = Channel


class _Parser(HTTPRequestParser):  # type: ignore[misc]
    limit_of: FindLimit
    is_refused = False

    def received(self, data: bytes) -> int:
        consumed: int = super().received(data)
        is_whole_head = self.headers_finished and not self.empty
        if is_whole_head and (self.error is None or isinstance(self.error, RequestEntityTooLarge)):
            self._refuse_if_too_large()
        if self.error is not None or self.is_refused:
            self.expect_continue = False  # who asked before sending need not send
        return consumed

    def _refuse_if_too_large(self) -> None:
        """The length tells the application why it is asked without a body."""
        size_bytes = max(self.content_length, self.body_bytes_received)
        if size_bytes > self.limit_of(self.path).most_bytes:
            self.headers["CONTENT_LENGTH"] = str(size_bytes)
            self.error, self.is_refused, self.completed = None, True, True


class _Task(WSGITask):  # type: ignore[misc]
    def execute(self) -> None:
        if self.request.is_refused:
            self.channel.is_refused = True
            self.set_close_on_finish()
        super().execute()


class _ErrorTask(ErrorTask):  # type: ignore[misc]
    def execute(self) -> None:
        self.channel.is_refused = True
        super().execute()


class _Channel(HTTPChannel):  # type: ignore[misc]
    """After an error it goes on reading for a while, and forgets what it reads: who is still sending when the
    connection is closed sees that it broke, and not why."""

    task_class = _Task
    error_task_class = _ErrorTask
    is_refused = False
    _lingers_until_s: float | None = None

    def received(self, data: bytes) -> bool:
        return self._lingers_until_s is None and bool(super().received(data))

    def readable(self) -> bool:
        return self._lingers_until_s is not None or bool(super().readable())

    def writable(self) -> bool:
        is_over = self._lingers_until_s is not None and time.monotonic() > self._lingers_until_s
        return is_over or (self._lingers_until_s is None and bool(super().writable()))

    def handle_write(self) -> None:
        if self._lingers_until_s is not None:
            super().handle_close()
            return
        super().handle_write()

    def handle_close(self) -> None:
        is_answered = self.is_refused and self._lingers_until_s is None and not self.total_outbufs_len
        if not (is_answered and self.connected):
            super().handle_close()
            return
        self.will_close = False
        self._lingers_until_s = time.monotonic() + LINGER_S
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
