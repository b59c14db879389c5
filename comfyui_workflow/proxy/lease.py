"""Leases the session of an instance to its local port.

How it works. The first request acquires the session; `borrow` blocks, so a thread does that and holds the
session (SessionThread). Later requests share the Upstream that leads to it. When the Upstream breaks, the
next request acquires a new one. An Upstream that was idle for IDLE_TIMEOUT_S is closed and its session
released. A failed attempt is cached, so that requests to an unreachable instance fail at once.

A ComfyUI that is being started refuses connections. So if it did not answer, the next Upstream is used only
after ComfyUI has answered on it; requests wait for that, as they wait for the SSH connection.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, suppress

import aiohttp
from yarl import URL

from comfyui_workflow.errors import ComfyUIUnavailable, NothingListens, WorkflowError
from comfyui_workflow.proxy.error_responses import InstanceUnreachable
from comfyui_workflow.proxy.model import Route
from comfyui_workflow.proxy.plain_requests import (
    FRESH_FOR_S,
    KEPT_FOR_S,
    LONGEST_LINE_BYTES,
    READ_BYTES,
    PlainConnections,
)
from comfyui_workflow.proxy.route_connector import NotConnected, RouteConnector
from comfyui_workflow.proxy.turns import Turns, turn_count

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 20.0
"""How long a request waits for the connection, and for an answer of ComfyUI if it did not answer before. An
attempt to connect continues after that, for the next request."""
START_PAUSE_S = 0.5
"""Interval in which a ComfyUI that does not answer is asked again, while a request waits."""
IDLE_TIMEOUT_S = 10.0
"""An idle connection is closed after this time."""
FAILURE_CACHE_S = 3.0
"""How long a failed attempt answers all requests: an instance that is unreachable does not get a connection
attempt for each of them."""
LASTING_FAILURE_CACHE_S = 15.0
"""For failures that a retry does not cure, like a refused SSH key: many attempts can make the machine block
this client."""
BROKEN = (aiohttp.ClientError, OSError, TimeoutError)
"""Errors of a request whose connection cannot be opened, or breaks."""
PING_TIMEOUT_S = 10.0
PING_VALID_S = 2.0
MAX_PING_BYTES = 64 * 1024


class AnswerTooLong(aiohttp.ClientPayloadError):
    """A response that is read here, not relayed, is longer than its limit."""


async def read_all(answer: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    """Reads a whole response. Raises: AnswerTooLong; aiohttp.ClientError, OSError, TimeoutError."""
    content = bytearray()
    async for piece in answer.content.iter_any():
        content += piece
        if len(content) > most_bytes:
            raise AnswerTooLong(f"it sends more than {most_bytes} bytes in answer to {answer.url.path}")
    return bytes(content)


class SessionThread:
    """Thread that holds a leased session, because `borrow` blocks and the event loop must not block. To be
    created on the event loop. The future `route` gets the route to ComfyUI once the session is leased, or a
    WorkflowError."""

    def __init__(self, borrow: Callable[[], AbstractContextManager[Route]], name: str) -> None:
        self.route: asyncio.Future[Route] = asyncio.get_running_loop().create_future()
        self._borrow = borrow
        self._returned = threading.Event()
        self._thread = threading.Thread(target=self._hold, name=f"local port {name}"[:60], daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Releases the session now, or as soon as it is leased. Idempotent."""
        self._returned.set()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _hold(self) -> None:
        try:
            with self._borrow() as route:
                self._report(route)
                self._returned.wait()
        except WorkflowError as error:
            self._report(error)
        except Exception:
            log.exception("the session of an instance could not be leased")
            self._report(WorkflowError("Internal error: see the log of the server."))

    def _report(self, outcome: Route | WorkflowError) -> None:
        with suppress(RuntimeError):  # the loop has ended: no request waits any more
            self.route.get_loop().call_soon_threadsafe(self._resolve, outcome)

    def _resolve(self, outcome: Route | WorkflowError) -> None:
        if self.route.done():
            return
        if not isinstance(outcome, WorkflowError):
            self.route.set_result(outcome)
        else:
            self.route.set_exception(outcome)
            self.route.exception()  # no request may be waiting: mark the exception as retrieved


class Upstream:
    """HTTP access to the ComfyUI of an instance through one leased session: `plain` for requests whose body
    is at hand, and client sessions for others. The session `kept` reuses its connections. `fresh` reuses only
    those that were in use a moment ago, so that no request is sent on a dead connection."""

    def __init__(self, thread: SessionThread, route: Route, login: Mapping[str, str]) -> None:
        """`login`: headers of all requests that do not have them already."""
        self.base_url = route.base_url
        self.is_broken = False
        self.user_count = 0
        self.used_at_s = 0.0
        """End of the last use, on the monotonic clock."""
        self.kept = _session(route, login, keepalive_s=KEPT_FOR_S)
        self.fresh = _session(route, login, keepalive_s=FRESH_FOR_S)
        self.plain = PlainConnections(route, login)
        self.turns = Turns(turn_count(route.round_trip_s))
        self._thread = thread
        self._answered_at_s = float("-inf")
        self._pinging: asyncio.Task[None] | None = None

    def url(self, target: str) -> URL:
        return URL(self.base_url + target, encoded=True)

    def note_answer(self) -> None:
        self._answered_at_s = time.monotonic()

    async def ping(self) -> None:
        """Checks that ComfyUI answers, before a request that must not be sent twice. Skipped if it answered
        less than PING_VALID_S ago. Requests that come at the same time share one ping. Raises:
        aiohttp.ClientError, OSError, TimeoutError."""
        if time.monotonic() - self._answered_at_s < PING_VALID_S:
            return
        if self._pinging is None:
            self._pinging = asyncio.create_task(self._ping())
            self._pinging.add_done_callback(self._pinged)
        await asyncio.shield(self._pinging)

    def _pinged(self, pinging: asyncio.Task[None]) -> None:
        self._pinging = None
        if not pinging.cancelled():
            pinging.exception()  # mark it as retrieved: no request may be waiting

    async def _ping(self) -> None:
        timeout = aiohttp.ClientTimeout(total=PING_TIMEOUT_S)
        async with self.kept.get(self.url("/prompt"), timeout=timeout, allow_redirects=False) as answer:
            await read_all(answer, MAX_PING_BYTES)
        self.note_answer()

    async def close(self) -> None:
        self._thread.release()
        self.plain.close()
        await self.kept.close()
        await self.fresh.close()

    def join(self, timeout_s: float) -> None:
        """Waits until the session is released. Blocks."""
        self._thread.join(timeout_s)


class InstanceLease:
    """The current Upstream of one local port. Belongs to the event loop. `trouble` is the reason why the
    instance could not be reached last time; None if it could."""

    def __init__(
        self,
        borrow: Callable[[], AbstractContextManager[Route]],
        name: str,
        login: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """`login` returns headers that pass a login before ComfyUI. Called while the session is leased."""
        self.name = name
        self._login = login
        self.trouble: str | None = None
        self._borrow = borrow
        self._upstream: Upstream | None = None
        self._opening: asyncio.Task[Upstream] | None = None
        self._is_silent = False
        """ComfyUI did not answer the last time: it may be starting."""
        self._waiting_count = 0
        self._failed_until_s = 0.0
        self._failure = ""
        self._idle: asyncio.TimerHandle | None = None
        self._all: set[Upstream] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._thread: SessionThread | None = None
        self._is_closed = False

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Upstream]:
        """Yields the current Upstream; opens one if there is none. Raises: InstanceUnreachable."""
        upstream = await self._current()
        upstream.user_count += 1
        try:
            yield upstream
        finally:
            upstream.user_count -= 1
            self._schedule_close(upstream)

    def succeeded(self, upstream: Upstream) -> None:
        upstream.note_answer()
        self.trouble = None
        self._is_silent = False

    def forget(self, upstream: Upstream, error: BaseException) -> InstanceUnreachable:
        """Marks the Upstream as broken, so that the next request opens a new one. Returns the error to
        raise."""
        upstream.is_broken = True
        if self._upstream is upstream:
            self._upstream = None
        self._schedule_close(upstream)
        self._is_silent = not isinstance(error, AnswerTooLong)
        self.trouble = f"ComfyUI on {self.name} does not answer: {_reason(error)}."
        return InstanceUnreachable(self.trouble)

    async def close(self) -> list[Upstream]:
        """Closes everything. Returns the Upstreams that were open, for a caller that waits for the release of
        their sessions."""
        self._is_closed = True
        if self._opening:
            self._opening.cancel()
        if self._thread:
            self._thread.release()
        if self._idle:
            self._idle.cancel()
        upstreams = list(self._all)
        await asyncio.gather(*(upstream.close() for upstream in upstreams), *self._closing)
        return upstreams

    async def _current(self) -> Upstream:
        if self._is_closed:
            raise InstanceUnreachable(f"The local port of {self.name} is being closed.")
        if self._upstream:
            return self._upstream
        if self._opening is None or self._opening.done():  # it is done shortly before `_opened` is called
            if time.monotonic() < self._failed_until_s:
                raise InstanceUnreachable(self._failure)
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(self._opened)
        self._waiting_count += 1
        try:
            return await asyncio.wait_for(asyncio.shield(self._opening), OPEN_TIMEOUT_S)
        except TimeoutError:
            if not self._is_silent or self.trouble is None:
                self.trouble = f"{self.name} cannot be reached: no connection after {OPEN_TIMEOUT_S:.0f} s."
            raise InstanceUnreachable(self.trouble) from None
        finally:
            self._waiting_count -= 1

    async def _open(self) -> Upstream:
        """Raises: InstanceUnreachable; if only ComfyUI does not answer, once no request waits any more."""
        while (upstream := await self._answering()) is None:
            await asyncio.sleep(START_PAUSE_S)
            if not self._waiting_count:
                raise InstanceUnreachable(self.trouble or "")
        self._upstream = upstream
        self._schedule_close(upstream)
        return upstream

    async def _answering(self) -> Upstream | None:
        """Leases the session. Returns None if ComfyUI does not answer; it is asked only if it did not answer
        before. Raises: InstanceUnreachable."""
        thread = self._thread = SessionThread(self._borrow, self.name)
        try:
            upstream = Upstream(thread, await thread.route, self._login())
        except WorkflowError as error:
            self.trouble = f"{self.name} cannot be reached: {error}"
            if isinstance(error, NothingListens | ComfyUIUnavailable):
                self._is_silent = True
                return None
            self._failure = self.trouble
            age_s = FAILURE_CACHE_S if error.is_transient else LASTING_FAILURE_CACHE_S
            self._failed_until_s = time.monotonic() + age_s
            raise InstanceUnreachable(self.trouble) from error
        self._all.add(upstream)
        return upstream if not self._is_silent or await self._answers(upstream) else None

    async def _answers(self, upstream: Upstream) -> bool:
        """Asks ComfyUI over a new Upstream. Closes the Upstream if ComfyUI does not answer."""
        try:
            await upstream.ping()
        except BROKEN as error:
            self.forget(upstream, error)
            return False
        self.succeeded(upstream)
        return True

    def _opened(self, opening: asyncio.Task[Upstream]) -> None:
        if self._opening is opening:
            self._opening = self._thread = None
        if not opening.cancelled():
            opening.exception()  # mark it as retrieved: no request may be waiting

    def _schedule_close(self, upstream: Upstream) -> None:
        """Closes a broken Upstream now, an idle one after IDLE_TIMEOUT_S."""
        if upstream.is_broken:
            self._close(upstream)
            return
        upstream.used_at_s = time.monotonic()
        if self._idle is None:
            self._idle = asyncio.get_running_loop().call_later(IDLE_TIMEOUT_S, self._close_idle)

    def _close_idle(self) -> None:
        self._idle, upstream = None, self._upstream
        if upstream is None or upstream.user_count:
            return
        left_s = upstream.used_at_s + IDLE_TIMEOUT_S - time.monotonic()
        if left_s > 0:
            self._idle = asyncio.get_running_loop().call_later(left_s, self._close_idle)
        else:
            self._close(upstream)

    def _close(self, upstream: Upstream) -> None:
        if upstream.user_count or upstream not in self._all:
            return
        if self._upstream is upstream:
            self._upstream = None
        self._all.discard(upstream)
        task = asyncio.get_running_loop().create_task(upstream.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _session(route: Route, login: Mapping[str, str], *, keepalive_s: float) -> aiohttp.ClientSession:
    """Returns a client session that adds nothing to requests but the login, and changes nothing in
    responses."""
    return aiohttp.ClientSession(
        headers=login,
        connector=RouteConnector(route, limit=0, keepalive_timeout=keepalive_s),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=False,
        max_line_size=LONGEST_LINE_BYTES,
        max_field_size=LONGEST_LINE_BYTES,
        read_bufsize=READ_BYTES,
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, NotConnected):
        return f"the connection to it cannot be opened ({error})"
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionResetError):
        return "the connection to it was closed, so it may not be running"
    return str(error) or type(error).__name__
