"""The way to one instance as its local port uses it: borrowed at the first request, given back when idle,
borrowed anew when it broke."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, suppress

import aiohttp
from yarl import URL

from comfyui_workflow.errors import WorkflowError
from comfyui_workflow.proxy.error_responses import InstanceUnreachable

log = logging.getLogger(__name__)

PATIENCE_S = 20.0
"""How long a request waits for the way to be opened. It goes on opening for the next one."""
LINGER_S = 10.0
"""An idle way is kept for so long."""
REFUSAL_AGE_S = 3.0
"""For so long a failure is everybody's answer: a machine that is away is not knocked at by every request."""
LASTING_REFUSAL_AGE_S = 15.0
"""For a key that is not accepted, and the like: knocking on locks one out."""
CONNECT_TIMEOUT_S = 10.0
PROOF_TIMEOUT_S = 10.0
PROVEN_FOR_S = 2.0
MOST_PROOF_BYTES = 64 * 1024
LONGEST_LINE_BYTES = 64 * 1024
READ_BYTES = 256 * 1024


class AnswerTooLong(aiohttp.ClientPayloadError):
    """An answer that is read here, and not passed on, is longer than it may be."""


async def whole(answer: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    """Raises: AnswerTooLong; aiohttp.ClientError, OSError, TimeoutError."""
    content = bytearray()
    async for piece in answer.content.iter_any():
        content += piece
        if len(content) > most_bytes:
            raise AnswerTooLong(f"it sends more than {most_bytes} bytes in answer to {answer.url.path}")
    return bytes(content)


class SessionThread:
    """A way borrowed by a thread of its own: `borrow` blocks, and the event loop must not. Made on the loop.
    `base_url` is settled once it is borrowed, or with a WorkflowError."""

    def __init__(self, borrow: Callable[[], AbstractContextManager[str]], name: str) -> None:
        self.base_url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._borrow = borrow
        self._returned = threading.Event()
        self._thread = threading.Thread(target=self._hold, name=f"local port {name}"[:60], daemon=True)
        self._thread.start()

    def give_back(self) -> None:
        """At once, or as soon as it is had. Idempotent."""
        self._returned.set()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _hold(self) -> None:
        try:
            with self._borrow() as base_url:
                self._tell(base_url)
                self._returned.wait()
        except WorkflowError as error:
            self._tell(error)
        except Exception:
            log.exception("the way to an instance could not be borrowed")
            self._tell(WorkflowError("Internal error: the log of the server has more."))

    def _tell(self, outcome: str | WorkflowError) -> None:
        with suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self.base_url.get_loop().call_soon_threadsafe(self._settle, outcome)

    def _settle(self, outcome: str | WorkflowError) -> None:
        if self.base_url.done():
            return
        if isinstance(outcome, str):
            self.base_url.set_result(outcome)
        else:
            self.base_url.set_exception(outcome)
            self.base_url.exception()  # nobody may be waiting for it


class Upstream:
    """An instance's ComfyUI as it can be reached now. `kept` keeps its connections; `fresh` opens one for
    each request, so that none can turn out to be dead when a request is on it."""

    def __init__(self, loan: SessionThread, base_url: str) -> None:
        self.base_url = base_url
        self.is_broken = False
        self.user_count = 0
        self.kept = _session(force_close=False)
        self.fresh = _session(force_close=True)
        self._loan = loan
        self._heard_at_s = float("-inf")

    def url(self, target: str) -> URL:
        return URL(self.base_url + target, encoded=True)

    def heard(self) -> None:
        self._heard_at_s = time.monotonic()

    async def ping(self) -> None:
        """That a ComfyUI answers, before something is sent that must not be sent twice.
        Raises: aiohttp.ClientError, OSError, TimeoutError."""
        if time.monotonic() - self._heard_at_s < PROVEN_FOR_S:
            return
        timeout = aiohttp.ClientTimeout(total=PROOF_TIMEOUT_S)
        async with self.kept.get(self.url("/prompt"), timeout=timeout, allow_redirects=False) as answer:
            await whole(answer, MOST_PROOF_BYTES)
        self.heard()

    async def close(self) -> None:
        self._loan.give_back()
        await self.kept.close()
        await self.fresh.close()

    def join(self, timeout_s: float) -> None:
        """Until it is given back. Blocks."""
        self._loan.join(timeout_s)


class InstanceLease:
    """Belongs to the event loop. `trouble` is why the instance could not be reached lately."""

    def __init__(self, borrow: Callable[[], AbstractContextManager[str]], name: str) -> None:
        self.name = name
        self.trouble: str | None = None
        self._borrow = borrow
        self._way: Upstream | None = None
        self._opening: asyncio.Task[Upstream] | None = None
        self._refused_until_s = 0.0
        self._refusal = ""
        self._idle: asyncio.TimerHandle | None = None
        self._all: set[Upstream] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._loan: SessionThread | None = None
        self._is_closed = False

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Upstream]:
        """Raises: InstanceUnreachable."""
        way = await self._current()
        way.user_count += 1
        try:
            yield way
        finally:
            way.user_count -= 1
            self._settle(way)

    def succeeded(self, way: Upstream) -> None:
        way.heard()
        self.trouble = None

    def forget(self, way: Upstream, why: BaseException) -> InstanceUnreachable:
        """It broke, or leads nowhere: the next one who wants a way borrows it anew. What to tell of it."""
        way.is_broken = True
        if self._way is way:
            self._way = None
        self._settle(way)
        self.trouble = f"ComfyUI on {self.name} does not answer: {_reason(why)}."
        return InstanceUnreachable(self.trouble)

    async def close(self) -> list[Upstream]:
        """Gives everything back; what has been on loan, for who wants to wait for that."""
        self._is_closed = True
        if self._opening:
            self._opening.cancel()
        if self._loan:
            self._loan.give_back()
        if self._idle:
            self._idle.cancel()
        ways = list(self._all)
        await asyncio.gather(*(way.close() for way in ways), *self._closing)
        return ways

    async def _current(self) -> Upstream:
        if self._is_closed:
            raise InstanceUnreachable(f"The local port of {self.name} is being closed.")
        if self._way:
            return self._way
        if self._opening is None:
            if time.monotonic() < self._refused_until_s:
                raise InstanceUnreachable(self._refusal)
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(self._opened)
        try:
            return await asyncio.wait_for(asyncio.shield(self._opening), PATIENCE_S)
        except TimeoutError:
            self.trouble = f"{self.name} cannot be reached: no connection after {PATIENCE_S:.0f} s."
            raise InstanceUnreachable(self.trouble) from None

    async def _open(self) -> Upstream:
        loan = self._loan = SessionThread(self._borrow, self.name)
        try:
            base_url = await loan.base_url
        except WorkflowError as error:
            self.trouble = self._refusal = f"{self.name} cannot be reached: {error}"
            age_s = REFUSAL_AGE_S if error.is_transient else LASTING_REFUSAL_AGE_S
            self._refused_until_s = time.monotonic() + age_s
            raise InstanceUnreachable(self.trouble) from error
        way = self._way = Upstream(loan, base_url)
        self._all.add(way)
        self._settle(way)
        return way

    def _opened(self, opening: asyncio.Task[Upstream]) -> None:
        self._opening = self._loan = None
        if not opening.cancelled():
            opening.exception()  # whoever waited has got it; there may be nobody

    def _settle(self, way: Upstream) -> None:
        """Closes it if it is of no use any more, soon if it is idle."""
        if way.is_broken:
            self._close(way)
            return
        if self._idle:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(LINGER_S, self._close, way)

    def _close(self, way: Upstream) -> None:
        if way.user_count or way not in self._all:
            return
        if self._way is way:
            self._way = None
        self._all.discard(way)
        task = asyncio.get_running_loop().create_task(way.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _session(*, force_close: bool) -> aiohttp.ClientSession:
    """One that adds nothing to a request and changes nothing in an answer."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=force_close),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        trust_env=False,
        max_line_size=LONGEST_LINE_BYTES,
        max_field_size=LONGEST_LINE_BYTES,
        read_bufsize=READ_BYTES,
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no word from it in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "the way to it is closed"
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionResetError):
        return "the connection to it was closed, so it may not be running"
    return str(error) or type(error).__name__
