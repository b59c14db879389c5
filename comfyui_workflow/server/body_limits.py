"""Bodies that are too large, refused by what their heads say: waitress itself reads a whole body before the
application is asked. It is the application that words the refusal; it is asked without the body."""

import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import RequestEntityTooLarge

HOLD_ANSWER = "comfyui_workflow.hold_answer"
"""In the environment of a request: called with seconds, it keeps the answer back for so long."""
SHORT_BODY_BYTES = 64 * 1024
"""Of clients that are not known: a login."""


@dataclass(frozen=True, kw_only=True)
class BodyLimit:
    most_bytes: int
    message: str


FindLimit = Callable[[str], BodyLimit]
"""Of a path."""


def anybody(_headers: Mapping[str, str]) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Refusals:
    """`is_known(headers)`: whether whoever sends them may send more than a short body. Their names are in
    capitals, with `_`."""

    find_limit: FindLimit
    is_known: Callable[[Mapping[str, str]], bool] = anybody

    def most_bytes(self, path: str, headers: Mapping[str, str]) -> int:
        most = self.find_limit(path).most_bytes
        return most if most <= SHORT_BODY_BYTES or self.is_known(headers) else SHORT_BODY_BYTES


class RefusingParser(HTTPRequestParser):  # type: ignore[misc]
    early: Refusals
    _most_bytes: int | None = None
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
        if self._most_bytes is None:
            self._most_bytes = self.early.most_bytes(self.path, self.headers)
        if size_bytes > self._most_bytes:
            self.headers["CONTENT_LENGTH"] = str(size_bytes)
            self.error, self.is_refused, self.completed = None, True, True


class _Task(WSGITask):  # type: ignore[misc]
    def execute(self) -> None:
        if self.request.is_refused:
            self.channel.is_refused = True
            self.set_close_on_finish()
        self.get_environment()[HOLD_ANSWER] = self.channel.hold_answer
        super().execute()


class _ErrorTask(ErrorTask):  # type: ignore[misc]
    def execute(self) -> None:
        self.channel.is_refused = True
        super().execute()


class RefusingChannel(HTTPChannel):  # type: ignore[misc]
    """After an error it goes on reading for a while, and forgets what it reads: who is still sending when the
    connection is closed sees that it broke, and not why. Somebody else ends that after a time."""

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
