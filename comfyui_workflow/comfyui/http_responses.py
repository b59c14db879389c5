"""HTTP responses of an instance, with limits on each: a `requests` session over timed connections.

How it works. The client asks for no compression and refuses compressed responses, so a few bytes cannot
expand to many. A body is read in pieces and counted; a large one goes to a temporary file. The number of
JSON values is estimated before the JSON is parsed.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from typing import IO, Any

import requests
import urllib3

from comfyui_workflow.comfyui.large_content import MOST_IN_MEMORY_BYTES, Spool, in_memory
from comfyui_workflow.comfyui.limits import (
    BYTES_WORTH_COUNTING,
    InstanceLimits,
    compressed_answer,
    too_many_bytes,
    too_many_values,
    value_count,
)
from comfyui_workflow.comfyui.timed_connections import TIMED_POOLS
from comfyui_workflow.errors import LimitExceeded
from comfyui_workflow.parsing.untrusted import read_json

_PIECE_BYTES = 64 * 1024
_WIDEST_CHARACTER_BYTES = 4


class InstanceSession(requests.Session):
    """Follows no redirect, and does not read the body of one."""

    def __init__(self, *, takes_cookies: bool) -> None:
        super().__init__()
        self.headers["Accept-Encoding"] = "identity"
        if not takes_cookies:  # cookies would accumulate and be sent with every request
            self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None


class TimedAdapter(requests.adapters.HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = TIMED_POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        if type(manager) is urllib3.ProxyManager:
            manager.pool_classes_by_scheme = TIMED_POOLS
        return manager


class AnswerBody:
    """The body of one response: in memory, or in an unnamed temporary file if it is long."""

    def __init__(self, content: bytes | IO[bytes]) -> None:
        self.values = 0
        """Upper bound of the number of JSON values, set by `json`; 0 for short bodies."""
        self._content = content

    def beginning(self, most_bytes: int) -> bytes:
        if isinstance(self._content, bytes):
            return self._content[:most_bytes]
        self._content.seek(0)
        return self._content.read(most_bytes)

    def whole(self) -> bytes:
        return self._content if isinstance(self._content, bytes) else self.beginning(-1)

    def json(self, limits: InstanceLimits, where: str) -> Any:
        """Parses the body. Raises: LimitExceeded; ValueError for invalid JSON."""
        if isinstance(self._content, bytes) and len(self._content) < BYTES_WORTH_COUNTING:
            return read_json(self._content)
        return _one_at_a_time(lambda: self._counted(limits, where))

    def _counted(self, limits: InstanceLimits, where: str) -> Any:
        content = self.whole()
        self.values = value_count(content)
        return _counted_json(content, limits.values, limits.answer_bytes, where)

    def close(self) -> None:
        if not isinstance(self._content, bytes):
            self._content.close()


def bounded_json(content: bytes, most_values: int, most_bytes: int, where: str) -> Any:
    """Parses JSON after counting its values; long texts one at a time. `most_bytes` limits the decoded text;
    `where` is the end of the error message. Raises: LimitExceeded; ValueError for invalid JSON."""
    if len(content) < BYTES_WORTH_COUNTING:
        return read_json(content)
    return _one_at_a_time(lambda: _counted_json(content, most_values, most_bytes, where))


def _one_at_a_time(parse: Callable[[], Any]) -> Any:
    """Raises: LimitExceeded, ValueError: new ones, because the traceback of an error holds the content, as
    the error of a JSON parser does."""
    with in_memory:
        try:
            return parse()
        except LimitExceeded as error:
            failure: LimitExceeded | ValueError = LimitExceeded(str(error))
        except ValueError as error:
            failure = ValueError(str(error))
    raise failure


def _counted_json(content: bytes, most_values: int, most_bytes: int, where: str) -> Any:
    if value_count(content) > most_values:
        raise too_many_values(where, most_values)
    most_wide_bytes = most_bytes // _WIDEST_CHARACTER_BYTES
    if len(content) > most_wide_bytes and not content.isascii():
        raise too_many_bytes(f"{where}, in other characters than ASCII", most_wide_bytes)
    with _gc_disabled():
        return read_json(content)


@contextmanager
def _gc_disabled() -> Iterator[None]:
    """Disables the garbage collector: parsed JSON has no cycles, and searching for them takes several times
    as long as parsing, while no other thread runs. To be used by one thread at a time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def refuse_encoding(response: requests.Response, what: str) -> None:
    """Raises: LimitExceeded."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise compressed_answer(what, encoding)


def read_body(response: requests.Response, most_bytes: int, most_values: int, where: str) -> AnswerBody:
    """Reads a body within the limits; the caller closes it. `where` is the end of the error message. Raises:
    LimitExceeded; urllib3's HTTPError, http.client.HTTPException, OSError."""
    raw = response.raw
    announced = raw.length_remaining
    if announced is not None:
        if announced > most_bytes:
            raise too_many_bytes(where, most_bytes)
        if announced <= MOST_IN_MEMORY_BYTES:
            return AnswerBody(raw.read(decode_content=False))
    return _spooled(raw, most_bytes, most_values, where)


def _spooled(raw: Any, most_bytes: int, most_values: int, where: str) -> AnswerBody:
    spool = Spool()
    try:
        values = 0
        while piece := raw.read(_PIECE_BYTES, decode_content=False):
            if spool.size_bytes + len(piece) > most_bytes:
                raise too_many_bytes(where, most_bytes)
            values += value_count(piece)
            if values > most_values:
                raise too_many_values(where, most_values)
            spool.write(piece)
    except BaseException:
        spool.close()
        raise
    return AnswerBody(spool.content())
