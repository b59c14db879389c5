"""Early refusal of request bodies that are too large.

How it works. waitress reads a whole body before it calls the application. `RefusingParser` checks the size
when the headers are complete (and again while a chunked body arrives). If the body is larger than the limit
of its path, the request counts as complete without the body, and the application is called: it creates the
error response. Then the connection lingers: the server reads and drops what the client still sends. If the
server closed the connection at once, the client would see a broken connection instead of the response.
"""

import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import RequestEntityTooLarge

DELAY_RESPONSE = "comfyui_workflow.hold_answer"
"""Key in the WSGI environment: a function that delays the response by a number of seconds."""
SHORT_BODY_BYTES = 64 * 1024
"""Maximum body size of unauthenticated clients: enough for a login."""


@dataclass(frozen=True, kw_only=True)
class BodyLimit:
    most_bytes: int
    message: str


FindLimit = Callable[[str], BodyLimit]
"""`find_limit(path)` returns the limit for a path."""


def allow_all(_headers: Mapping[str, str]) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class BodyLimits:
    """Determines the maximum body size of a request.

    `is_known(headers)`: True if the sender of these headers may send more than a short body. Header names are
    in capitals with `_`, as waitress stores them."""

    find_limit: FindLimit
    is_known: Callable[[Mapping[str, str]], bool] = allow_all

    def most_bytes(self, path: str, headers: Mapping[str, str]) -> int:
        """Returns the maximum body size in bytes."""
        most = self.find_limit(path).most_bytes
        return most if most <= SHORT_BODY_BYTES or self.is_known(headers) else SHORT_BODY_BYTES


class RefusingParser(HTTPRequestParser):  # type: ignore[misc]
    """Parses a request, and stops reading its body when that is too large."""

    body_limits: BodyLimits
    _most_bytes: int | None = None
    is_refused = False

    def received(self, data: bytes) -> int:
        consumed: int = super().received(data)
        is_whole_head = self.headers_finished and not self.empty
        if is_whole_head and (self.error is None or isinstance(self.error, RequestEntityTooLarge)):
            self._refuse_if_too_large()
        if self.error is not None or self.is_refused:
            self.expect_continue = False  # a client that waits for `100 Continue` need not send the body
        return consumed

    def _refuse_if_too_large(self) -> None:
        """Marks the request as refused. Its `Content-Length` tells the application the reason."""
        size_bytes = max(self.content_length, self.body_bytes_received)
        if self._most_bytes is None:
            self._most_bytes = self.body_limits.most_bytes(self.path, self.headers)
        if size_bytes > self._most_bytes:
            self.headers["CONTENT_LENGTH"] = str(size_bytes)
            self.error, self.is_refused, self.completed = None, True, True


class _Task(WSGITask):  # type: ignore[misc]
    def execute(self) -> None:
        if self.request.is_refused:
            self.channel.is_refused = True
            self.set_close_on_finish()
        self.get_environment()[DELAY_RESPONSE] = self.channel.delay_response
        super().execute()


class _ErrorTask(ErrorTask):  # type: ignore[misc]
    def execute(self) -> None:
        self.channel.is_refused = True
        super().execute()


class RefusingChannel(HTTPChannel):  # type: ignore[misc]
    """Connection that lingers after a refusal: it reads and drops the rest of the request.

    A client that is still sending when the connection is closed would see a broken connection, not the error
    response. `Listener.sweep` ends the lingering after a timeout."""

    task_class = _Task
    error_task_class = _ErrorTask
    is_refused = False
    is_lingering = False

    def readable(self) -> bool:
        return self.is_lingering or bool(super().readable())

    def writable(self) -> bool:
        return not self.is_lingering and bool(super().writable())

    def handle_close(self) -> None:
        is_answered = self.is_refused and not self.is_lingering and not self.total_outbufs_len
        if not (is_answered and self.connected):
            super().handle_close()
            return
        self.will_close = False
        self.is_lingering = True
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
