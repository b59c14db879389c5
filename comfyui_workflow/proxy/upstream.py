"""A websocket to ComfyUI that outlives the connection it runs on."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass

import aiohttp
from aiohttp import WSMsgType

from comfyui_workflow.parsing.untrusted import a_text, an_object
from comfyui_workflow.proxy.error_responses import InstanceUnreachable
from comfyui_workflow.proxy.http import BROKEN
from comfyui_workflow.proxy.lease import PATIENCE_S, InstanceLease, Upstream
from comfyui_workflow.proxy.missed_events import UnfinishedPrompts, message_of
from comfyui_workflow.proxy.prompt_status import history_of, queued_ids, with_prompt_id
from comfyui_workflow.proxy.send_queue import Frame
from comfyui_workflow.proxy.websocket_urls import client_id_in, is_comfyui_socket, with_client_id

log = logging.getLogger(__name__)

REOPEN_AFTER_S = 0.5
"""When an old socket of a client id closes, ComfyUI unregisters the new one with it: so the old one is closed
first, and given time."""
LONGEST_PAUSE_S = 3.0
REOPEN_FOR_S = 30.0
HANDSHAKE_TIMEOUT_S = 15.0
CLOSE_TIMEOUT_S = 1.0
SILENCE_S = 30.0
"""A socket that was opened again and is silent for so long although a prompt goes on may be one that ComfyUI
has forgotten, because its predecessor ended only now: it is opened once more, and told what it missed."""
LONGEST_HOLD_S = 1.0
LARGEST_HOLD_BYTES = 16 * 1024 * 1024
"""More is delivered at once."""
LARGEST_MESSAGE_BYTES = 32 * 1024 * 1024
"""Of an instance, unpacked: a larger one ends the socket."""
SERVICE_RESTART = 1012
GOING_AWAY = (1001, SERVICE_RESTART)
FRAME_HEAD = 40


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a websocket ended: what its client is told."""

    code: int
    reason: bytes = b""


TOO_BIG = Ending(code=1009, reason=b"The instance sends a message that is too large.")
GONE = Ending(code=1001, reason=b"The connection to the instance broke.")


class UpstreamSocket:
    """`deliver` gets every frame, in order, and must not block. Belongs to the event loop.

    `client_id` is the one in `target`, or the one that ComfyUI chose: it is kept when the socket is opened
    again. A socket that is no ComfyUI `/ws` ends when its connection does: nobody knows what it missed.
    """

    def __init__(
        self,
        approach: InstanceLease,
        target: str,
        deliver: Callable[[Frame], None],
        *,
        headers: Mapping[str, str] | None = None,
        protocols: tuple[str, ...] = (),
        compress: bool = False,
    ) -> None:
        self.client_id = client_id_in(target)
        self.unfinished = UnfinishedPrompts()
        self.protocol: str | None = None
        self.was_reopened = False
        self.has_predecessor = False
        self.heard_count = 0
        self._approach = approach
        self._target = target
        self._deliver = deliver
        self._held: list[Frame] = []
        self._held_bytes = 0
        self._holds: set[object] = set()
        self._headers = headers
        self._protocols = protocols
        self._compress = compress
        self._may_reopen = is_comfyui_socket(target)
        self._flags: str | None = None
        self._has_sent = False
        self._ignores_flags = False
        self._is_displaced = False
        self._told_of: set[str] = set()
        self._running_id: str | None = None
        self._open = asyncio.Event()
        self._running: asyncio.Task[Ending] | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    @property
    def may_be_forgotten(self) -> bool:
        """One of its client id was there before it, whose end ComfyUI may come to know of only now."""
        return self.was_reopened or self.has_predecessor

    async def start(self) -> None:
        """Returns once it is open.

        Raises: InstanceUnreachable; aiohttp.WSServerHandshakeError where ComfyUI refuses it."""
        self._running = asyncio.create_task(self._run())
        is_open = asyncio.create_task(self._open.wait())
        try:
            await asyncio.wait({self._running, is_open}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            is_open.cancel()
        if self._running.done():
            self._running.result()

    async def ended(self) -> Ending:
        return await asyncio.shield(self._running) if self._running else GONE

    async def close(self) -> None:
        """Politely, so that ComfyUI has forgotten this socket before another of its client id comes."""
        if self._running:
            self._running.cancel()
            await asyncio.wait({self._running})
            if not self._running.cancelled():
                self._running.exception()

    async def send(self, frame: Frame) -> None:
        """Waits while it is being opened again."""
        if not self._has_sent and isinstance(frame, str) and message_of(frame).get("type") == "feature_flags":
            self._flags = frame
        self._has_sent = True
        await self._open.wait()
        if self._socket:
            with suppress(ConnectionError):  # it has just broken; a frame on its way is lost, as with any
                await (
                    self._socket.send_str(frame) if isinstance(frame, str) else self._socket.send_bytes(frame)
                )

    @contextmanager
    def holding(self) -> Iterator[None]:
        """What is heard meanwhile is delivered afterwards, or after a second: ComfyUI answers a prompt before
        it tells what becomes of it, and clients begin to listen once they have the answer."""
        hold = object()
        self._holds.add(hold)
        timer = asyncio.get_running_loop().call_later(LONGEST_HOLD_S, self._release, hold)
        try:
            yield
        finally:
            timer.cancel()
            self._release(hold)

    def _release(self, hold: object) -> None:
        self._holds.discard(hold)
        if not self._holds:
            self._deliver_held()

    def _deliver_held(self) -> None:
        held, self._held, self._held_bytes = self._held, [], 0
        for frame in held:
            self._deliver(frame)

    def _pass_on(self, frame: Frame) -> None:
        if not self._holds:
            self._deliver(frame)
            return
        self._held.append(frame)
        self._held_bytes += len(frame)
        if self._held_bytes > LARGEST_HOLD_BYTES:
            self._deliver_held()

    async def displace(self) -> None:
        """Another socket of this client id takes over. This one stays, and hears nothing, as in ComfyUI."""
        self._is_displaced = True
        await self.renew()

    async def renew(self) -> None:
        """The cure for a deaf one."""
        if self._socket:
            await self._socket.close()

    async def _run(self) -> Ending:
        ending = await self._live(PATIENCE_S + HANDSHAKE_TIMEOUT_S)
        while ending is None:
            ending = await self._reopen()
        return ending

    async def _reopen(self) -> Ending | None:
        if self._is_displaced:
            await asyncio.get_running_loop().create_future()
        if not self._may_reopen or self.client_id is None:
            return GONE
        self.was_reopened = True
        now_s = asyncio.get_running_loop().time
        pause_s, until_s = REOPEN_AFTER_S, now_s() + REOPEN_FOR_S
        while (left_s := until_s - now_s()) > 0:
            await asyncio.sleep(pause_s)
            try:
                return await self._live(left_s)
            except (InstanceUnreachable, *BROKEN) as error:
                log.debug("%s: the websocket could not be opened again: %s", self._approach.name, error)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return Ending(code=SERVICE_RESTART, reason=b"The instance cannot be reached.")

    async def _live(self, limit_s: float) -> Ending | None:
        """One connection, from its opening to its end. None where it broke."""
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(limit_s):
                way, socket = await self._enter(stack)
                if self.was_reopened and not await self._catch_up(way):
                    return Ending(code=SERVICE_RESTART, reason=b"A prompt was lost: ComfyUI was restarted.")
            self._socket = socket
            self._open.set()
            try:
                return await self._read(socket)
            finally:
                self._socket = None
                self._open.clear()

    async def _enter(self, stack: AsyncExitStack) -> tuple[Upstream, aiohttp.ClientWebSocketResponse]:
        """On a way that turns out to be broken another one is tried, once."""
        for is_last in (False, True):
            async with AsyncExitStack() as attempt:
                way = await attempt.enter_async_context(self._approach.use())
                try:
                    socket = await self._connect(way)
                except InstanceUnreachable:
                    if is_last:
                        raise
                    continue
                attempt.push_async_callback(socket.close)
                stack.push_async_callback(attempt.pop_all().aclose)
                return way, socket
        raise AssertionError("the last try returns or raises")

    async def _connect(self, way: Upstream) -> aiohttp.ClientWebSocketResponse:
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                socket = await way.kept.ws_connect(
                    way.url(with_client_id(self._target, self.client_id)),
                    headers=self._headers,
                    protocols=self._protocols,
                    compress=15 if self._compress else 0,
                    max_msg_size=LARGEST_MESSAGE_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
                )
        except aiohttp.WSServerHandshakeError:
            raise
        except BROKEN as error:
            raise self._approach.forget(way, error) from error
        self._approach.succeeded(way)
        self.protocol = socket.protocol
        if self._flags is not None:
            self._ignores_flags = True
            await socket.send_str(self._flags)
        return socket

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> Ending | None:
        while True:
            try:
                message = await socket.receive(SILENCE_S if self.may_be_forgotten else None)
            except TimeoutError:
                if self.unfinished.prompt_ids:
                    return None
                continue
            if message.type is WSMsgType.TEXT:
                self._hear(message.data)
            elif message.type is WSMsgType.BINARY:
                self.heard_count += 1
                self._pass_on(message.data)
            elif message.type is WSMsgType.CLOSE and message.data not in GOING_AWAY:
                return Ending(
                    code=message.data or aiohttp.WSCloseCode.OK, reason=(message.extra or "").encode()
                )
            elif socket.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
                self._approach.trouble = (
                    f"ComfyUI on {self._approach.name} sends a websocket message of more than "
                    f"{LARGEST_MESSAGE_BYTES // 1024**2} MB: the socket was closed. Restart it there."
                )
                return TOO_BIG
            else:
                return None

    def _hear(self, frame: str) -> None:
        self.heard_count += 1
        if self.client_id is None:
            self._learn_id(frame)
        if self._ignores_flags and frame[:FRAME_HEAD].find('"feature_flags"') >= 0:
            self._ignores_flags = False  # the answer to the flags sent again
            return
        if any(prompt_id in frame for prompt_id in self._told_of):
            return
        if self.was_reopened and '"executing"' in frame[:FRAME_HEAD] and '"prompt_id"' not in frame:
            if self._running_id is None:
                return
            frame = with_prompt_id(frame, self._running_id)
        self.unfinished.hear(frame)
        self._pass_on(frame)

    def _learn_id(self, frame: str) -> None:
        """ComfyUI's first message says which one it chose."""
        self.client_id = a_text(an_object(message_of(frame).get("data")).get("sid"))

    async def _catch_up(self, way: Upstream) -> bool:
        """Tells what ended while nobody listened. False where a prompt is nowhere any more."""
        self._told_of.clear()
        waiting = self.unfinished.prompt_ids
        if not waiting:
            return True
        running, pending = await queued_ids(way)
        self._running_id = next((prompt_id for prompt_id in waiting if prompt_id in running), None)
        for prompt_id in waiting:
            if prompt_id in running or prompt_id in pending:
                continue
            frames = list(self.unfinished.missed(prompt_id, await history_of(way, prompt_id)))
            if not frames:
                return False
            self._told_of.add(prompt_id)
            for frame in frames:
                self._pass_on(frame)
        return True
