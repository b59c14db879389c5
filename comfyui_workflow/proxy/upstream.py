"""A websocket to ComfyUI that survives broken connections.

How it works. When the connection breaks, the socket is opened again with the same client id, for up to
REOPEN_FOR_S. Then it requests the state of the prompts that its client waits for, and delivers the events
that were missed (`missed_events`). A prompt that ComfyUI does not know any more ends the socket with code
1012: ComfyUI was restarted.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass

import aiohttp
from aiohttp import WSMsgType

from comfyui_workflow.parsing.untrusted import as_object, as_text
from comfyui_workflow.proxy.error_responses import InstanceUnreachable
from comfyui_workflow.proxy.lease import BROKEN, OPEN_TIMEOUT_S, InstanceLease, Upstream
from comfyui_workflow.proxy.missed_events import UnfinishedPrompts, message_of
from comfyui_workflow.proxy.prompt_status import history_of, queued_ids, with_prompt_id
from comfyui_workflow.proxy.send_queue import Frame
from comfyui_workflow.proxy.websocket_urls import client_id_in, is_comfyui_socket, with_client_id

log = logging.getLogger(__name__)

REOPEN_AFTER_S = 0.5
"""When an old socket of a client id closes, ComfyUI unregisters the new one with it. So the old one is closed
first, and ComfyUI gets this time to notice it."""
LONGEST_PAUSE_S = 3.0
REOPEN_FOR_S = 30.0
HANDSHAKE_TIMEOUT_S = 15.0
CLOSE_TIMEOUT_S = 1.0
SILENCE_S = 30.0
"""A reopened socket that receives nothing for this time, while a prompt is unfinished, may be deaf: ComfyUI
unregistered its client id when the predecessor ended late. It is opened once more, and catches up."""
FIRST_MESSAGE_S = 5.0
"""ComfyUI greets a new socket with a `status` message at once."""
LONGEST_HOLD_S = 1.0
LARGEST_HOLD_BYTES = 16 * 1024 * 1024
"""If more than this is held back, it is delivered at once."""
LARGEST_MESSAGE_BYTES = 32 * 1024 * 1024
"""Limit for a message of the instance, after decompression; a larger one ends the socket."""
SERVICE_RESTART = 1012
GOING_AWAY = (1001, SERVICE_RESTART)
FRAME_HEAD = 40


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Close code and reason for the client."""

    code: int
    reason: bytes = b""


TOO_BIG = Ending(code=1009, reason=b"The instance sends a message that is too large.")
GONE = Ending(code=1001, reason=b"The connection to the instance broke.")


class UpstreamSocket:
    """A websocket to ComfyUI that reopens itself. `deliver` gets every frame, in order, and must not block.
    Belongs to the event loop.

    `client_id` is the one in `target`, or the one that ComfyUI chose; it stays the same when the socket is
    reopened. A socket other than ComfyUI's `/ws`, of a custom node, has none. It ends when its connection
    ends: what it missed cannot be known.
    """

    def __init__(
        self,
        lease: InstanceLease,
        target: str,
        deliver: Callable[[Frame], None],
        *,
        headers: Mapping[str, str] | None = None,
        protocols: tuple[str, ...] = (),
        compress: bool = False,
    ) -> None:
        self.client_id = client_id_in(target) if is_comfyui_socket(target) else None
        self.unfinished = UnfinishedPrompts()
        self.protocol: str | None = None
        self.was_reopened = False
        self.has_predecessor = False
        self.received_count = 0
        self._lease = lease
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
        self._replayed_ids: set[str] = set()
        self._running_id: str | None = None
        self._open = asyncio.Event()
        self._is_greeted = asyncio.Event()
        self._running: asyncio.Task[Ending] | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    @property
    def may_be_deaf(self) -> bool:
        """True if there was an earlier socket with this client id. ComfyUI may notice its end only now, and
        then this socket becomes deaf."""
        return self.was_reopened or self.has_predecessor

    async def start(self) -> None:
        """Returns once the socket is open.

        Raises: InstanceUnreachable; aiohttp.WSServerHandshakeError if ComfyUI refuses it.
        """
        self._running = asyncio.create_task(self._run())
        await self._set_or_ended(self._open)
        if self._running.done():
            self._running.result()

    async def ended(self) -> Ending:
        return await asyncio.shield(self._running) if self._running else GONE

    async def close(self) -> None:
        """Closes with a handshake, so that ComfyUI has unregistered this socket before another one with its
        client id opens."""
        if self._running:
            self._running.cancel()
            await asyncio.wait({self._running})
            if not self._running.cancelled():
                self._running.exception()

    async def send(self, frame: Frame) -> None:
        """Waits while the socket is being reopened."""
        if not self._has_sent and isinstance(frame, str) and message_of(frame).get("type") == "feature_flags":
            self._flags = frame
        self._has_sent = True
        await self._open.wait()
        if self._socket:
            # If the connection has just broken, the frame is lost, like any frame in transit.
            with suppress(ConnectionError):
                await (
                    self._socket.send_str(frame) if isinstance(frame, str) else self._socket.send_bytes(frame)
                )

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Holds back received frames until the block ends, at most LONGEST_HOLD_S. Clients begin to listen
        for the events of a prompt once they have the response to their submission, so the response must come
        first."""
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
        """Another socket takes over this client id. This one stays open and receives nothing more, as in
        ComfyUI: it may have been opened just before, so first it gets ComfyUI's greeting."""
        if not self._is_greeted.is_set():
            await self._set_or_ended(self._open)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._set_or_ended(self._is_greeted), FIRST_MESSAGE_S)
        self._is_displaced = True
        await self.renew()

    async def renew(self) -> None:
        """Closes the connection, so that it is opened again: a reopened socket is not deaf."""
        if self._socket:
            await self._socket.close()

    async def _set_or_ended(self, event: asyncio.Event) -> None:
        """Waits for the event, or for the end of this socket."""
        waiting = asyncio.create_task(event.wait())
        try:
            await asyncio.wait({waiting, *filter(None, [self._running])}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()

    async def _run(self) -> Ending:
        ending = await self._live(OPEN_TIMEOUT_S + HANDSHAKE_TIMEOUT_S)
        while ending is None:
            ending = await self._reopen()
        return ending

    async def _reopen(self) -> Ending | None:
        if not self._may_reopen or self.client_id is None:
            return GONE
        self.was_reopened = True
        now_s = asyncio.get_running_loop().time
        pause_s, until_s = REOPEN_AFTER_S, now_s() + REOPEN_FOR_S
        while (left_s := until_s - now_s()) > 0:
            await asyncio.sleep(pause_s)
            if self._is_displaced:
                await asyncio.get_running_loop().create_future()
            try:
                return await self._live(left_s)
            except (InstanceUnreachable, *BROKEN) as error:
                log.debug("%s: the websocket could not be opened again: %s", self._lease.name, error)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return Ending(code=SERVICE_RESTART, reason=b"The instance cannot be reached.")

    async def _live(self, limit_s: float) -> Ending | None:
        """Runs one connection from its opening to its end. Returns None if it broke."""
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(limit_s):
                upstream, socket = await self._enter(stack)
                if self.was_reopened and not await self._catch_up(upstream):
                    return Ending(code=SERVICE_RESTART, reason=b"A prompt was lost: ComfyUI was restarted.")
            self._socket = socket
            self._open.set()
            try:
                return await self._read(socket)
            finally:
                self._socket = None
                self._open.clear()

    async def _enter(self, stack: AsyncExitStack) -> tuple[Upstream, aiohttp.ClientWebSocketResponse]:
        """Opens the websocket; retries once on a new Upstream if the first one is broken."""
        for is_last in (False, True):
            async with AsyncExitStack() as attempt:
                upstream = await attempt.enter_async_context(self._lease.use())
                try:
                    socket = await self._connect(upstream)
                except InstanceUnreachable:
                    if is_last:
                        raise
                    continue
                attempt.push_async_callback(socket.close)
                stack.push_async_callback(attempt.pop_all().aclose)
                return upstream, socket
        raise AssertionError("the last try returns or raises")

    async def _connect(self, upstream: Upstream) -> aiohttp.ClientWebSocketResponse:
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                socket = await upstream.kept.ws_connect(
                    upstream.url(with_client_id(self._target, self.client_id)),
                    headers=self._headers,
                    protocols=self._protocols,
                    compress=15 if self._compress else 0,
                    max_msg_size=LARGEST_MESSAGE_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT_S),
                )
        except aiohttp.WSServerHandshakeError:
            raise
        except BROKEN as error:
            raise self._lease.forget(upstream, error) from error
        self._lease.succeeded(upstream)
        self.protocol = socket.protocol
        if self._flags is not None:
            self._ignores_flags = True
            await socket.send_str(self._flags)
        return socket

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> Ending | None:
        while True:
            try:
                message = await socket.receive(SILENCE_S if self.may_be_deaf else None)
            except TimeoutError:
                if self.unfinished.prompt_ids:
                    return None
                continue
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                self.received_count += 1
                self._is_greeted.set()
            if message.type is WSMsgType.TEXT:
                self._receive(message.data)
            elif message.type is WSMsgType.BINARY:
                self._pass_on(message.data)
            elif message.type is WSMsgType.CLOSE and message.data not in GOING_AWAY:
                return Ending(
                    code=message.data or aiohttp.WSCloseCode.OK, reason=(message.extra or "").encode()
                )
            elif socket.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
                self._lease.trouble = (
                    f"ComfyUI on {self._lease.name} sends a websocket message of more than "
                    f"{LARGEST_MESSAGE_BYTES // 1024**2} MB: the socket was closed. Restart it there."
                )
                return TOO_BIG
            else:
                return None

    def _receive(self, frame: str) -> None:
        if self.client_id is None and self._may_reopen:
            self._learn_id(frame)
        if self._ignores_flags and frame[:FRAME_HEAD].find('"feature_flags"') >= 0:
            self._ignores_flags = False  # the answer to the flags sent again
            return
        if any(prompt_id in frame for prompt_id in self._replayed_ids):
            return
        if self.was_reopened and '"executing"' in frame[:FRAME_HEAD] and '"prompt_id"' not in frame:
            if self._running_id is None:
                return
            frame = with_prompt_id(frame, self._running_id)
        self.unfinished.observe(frame)
        self._pass_on(frame)

    def _learn_id(self, frame: str) -> None:
        """Reads the client id that ComfyUI chose from its first message."""
        self.client_id = as_text(as_object(message_of(frame).get("data")).get("sid"))

    async def _catch_up(self, upstream: Upstream) -> bool:
        """Delivers the end of each prompt that ended while the socket was disconnected. Returns False if
        ComfyUI does not know a prompt any more."""
        self._replayed_ids.clear()
        waiting = self.unfinished.prompt_ids
        if not waiting:
            return True
        running, pending = await queued_ids(upstream)
        self._running_id = next((prompt_id for prompt_id in waiting if prompt_id in running), None)
        for prompt_id in waiting:
            if prompt_id in running or prompt_id in pending:
                continue
            frames = list(self.unfinished.missed(prompt_id, await history_of(upstream, prompt_id)))
            if not frames:
                return False
            self._replayed_ids.add(prompt_id)
            for frame in frames:
                self._pass_on(frame)
        return True
