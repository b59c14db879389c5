"""One local port: its listening sockets, and the handling of requests."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from weakref import WeakKeyDictionary

from aiohttp import web

from comfyui_workflow.access.connection_limits import ConnectionLimits
from comfyui_workflow.proxy import error_responses
from comfyui_workflow.proxy.anonymous_events import AnonymousEvents
from comfyui_workflow.proxy.client_socket import ClientSocket
from comfyui_workflow.proxy.error_responses import AnswerLost, InstanceUnreachable
from comfyui_workflow.proxy.headers import forwarded_headers, refusal_of, server_token_headers
from comfyui_workflow.proxy.http import forward
from comfyui_workflow.proxy.lease import InstanceLease, Upstream
from comfyui_workflow.proxy.model import LIMITS, PortPolicy, PortState, PortWanted, Route
from comfyui_workflow.proxy.own_routes import PortRoutes
from comfyui_workflow.proxy.plain_requests import LONGEST_LINE_BYTES, READ_BYTES
from comfyui_workflow.proxy.prompt_rewrite import PromptBody, is_prompt, read_prompt
from comfyui_workflow.proxy.registry import SocketRegistry
from comfyui_workflow.proxy.slow_clients import WatchedServer
from comfyui_workflow.proxy.submit import LostPrompt, accepted_id, response_of, resubmit

log = logging.getLogger(__name__)

BACKLOG = 512
"""Connections that the kernel accepts before this server does. It drops further ones, and their clients try
again only after a second."""
LINGERING_S = 10.0
CUT_WITHIN_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Backend:
    """What answers the requests of one port: the instance, and routes of this server."""

    borrow: Callable[[], AbstractContextManager[Route]]
    login: Callable[[], Mapping[str, str]] = dict
    own: PortRoutes | None = None


class LocalPort:
    """Belongs to the event loop, except `state`."""

    def __init__(
        self,
        wanted: PortWanted,
        backend: Backend,
        policy: PortPolicy,
        limits: ConnectionLimits = LIMITS,
    ) -> None:
        self.wanted = wanted
        self._own = backend.own
        self._policy = policy
        self._lease = InstanceLease(backend.borrow, wanted.name, backend.login)
        self._registry = SocketRegistry()
        self._feed = AnonymousEvents(self._lease)
        self._listening: list[asyncio.Server] = []
        self._port = wanted.port
        self._trouble: str | None = None
        self._request_count = 0
        self._peers: WeakKeyDictionary[asyncio.Transport, str | None] = WeakKeyDictionary()
        self._socket_count = 0
        self._watching: asyncio.Task[None] | None = None
        self._http = WatchedServer(
            self._answer,
            limits,
            handler_cancellation=True,
            auto_decompress=False,
            access_log=None,
            lingering_time=LINGERING_S,
            max_line_size=LONGEST_LINE_BYTES,
            max_field_size=LONGEST_LINE_BYTES,
            read_bufsize=READ_BYTES,
        )

    @property
    def state(self) -> PortState:
        """May be read from any thread."""
        return PortState(
            port=self._port,
            is_listening=bool(self._listening),
            trouble=self._trouble or self._lease.trouble,
            open_requests=self._request_count,
            open_sockets=self._socket_count,
        )

    async def listen(self) -> None:
        """Opens the port; does nothing if it is open. An error is recorded in `state`."""
        if self._listening:
            return
        try:
            sockets = _listening_sockets(self.wanted.port)
        except OSError as error:
            self._trouble = (
                f"Port {self.wanted.port} of this machine cannot be opened for {self.wanted.name}: "
                f"{error.strerror}. Another program may be using it."
            )
            return
        self._trouble = None
        self._port = sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        self._listening = [
            await loop.create_server(self._http, sock=each, backlog=BACKLOG) for each in sockets
        ]
        self._watching = loop.create_task(self._http.watch())

    async def close(self) -> list[Upstream]:
        """Closes the port and all its connections. Returns the Upstreams that were open, for a caller that
        waits for the release of their sessions."""
        for server in self._listening:
            server.close()
        self._listening = []
        if self._watching:
            self._watching.cancel()
        for connection in self._http.connections:
            if connection.transport:
                connection.transport.abort()
        await self._http.shutdown(CUT_WITHIN_S)
        await self._feed.close()
        await self._registry.close()
        return await self._lease.close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        with self._http.answering(request):
            return await self._answer_any(request)

    async def _answer_any(self, request: web.BaseRequest) -> web.StreamResponse:
        sentence = self._refusal_of_peer(request)
        sentence = sentence or refusal_of(request.headers, request.method, self._policy)
        if sentence:
            return error_responses.refused_response(sentence)
        if not request.raw_path.startswith("/"):
            return error_responses.refused_response("A local port is not a proxy.", 400)
        try:
            if _is_upgrade(request):
                return await self._answer_socket(request)
            return await self._answer_request(request)
        except InstanceUnreachable as error:
            return error_responses.unreachable_response(error)
        except AnswerLost as error:
            return error_responses.answer_lost_response(error)

    def _refusal_of_peer(self, request: web.BaseRequest) -> str | None:
        """Checks the local user once per connection, and caches the result."""
        if self._headers_to_drop(request) or request.transport is None:
            return None
        if request.transport not in self._peers:
            connection = request.transport.get_extra_info("socket")
            try:
                self._peers[request.transport] = self._policy.users.refusal(connection)
            except OSError:  # the client has disconnected
                return "This connection has ended"
        return self._peers[request.transport]

    async def _answer_socket(self, request: web.BaseRequest) -> web.StreamResponse:
        self._socket_count += 1
        try:
            return await self._client_socket(request).serve(request)
        finally:
            self._socket_count -= 1

    def _client_socket(self, request: web.BaseRequest) -> ClientSocket:
        return ClientSocket(self._lease, self._feed, self._registry, self._headers_to_drop(request))

    def _headers_to_drop(self, request: web.BaseRequest) -> tuple[str, ...]:
        return server_token_headers(request.headers, self._policy.token)

    async def _answer_request(self, request: web.BaseRequest) -> web.StreamResponse:
        self._request_count += 1
        try:
            if self._own is not None and self._own.has(request):
                return await self._own.serve(request)
            if is_prompt(request):
                return await self._submit(request)
            return await forward(request, self._lease, without=self._headers_to_drop(request))
        finally:
            self._request_count -= 1

    async def _submit(self, request: web.BaseRequest) -> web.StreamResponse:
        prompt = await read_prompt(request, self._feed.client_id)
        if prompt.has_our_client_id:
            await self._feed.ensure_open()
        without = self._headers_to_drop(request)
        with self._feed.holding() if prompt.has_our_client_id else self._registry.holding(prompt.client_id):
            try:
                return await forward(
                    request,
                    self._lease,
                    body=prompt.content,
                    on_answer=partial(self._submitted, prompt),
                    without=without,
                )
            except AnswerLost:
                if prompt.prompt_id is None:
                    raise
                return await self._resubmit(request, prompt, prompt.prompt_id, without)

    async def _resubmit(
        self, request: web.BaseRequest, prompt: PromptBody, prompt_id: str, without: tuple[str, ...]
    ) -> web.StreamResponse:
        """Raises: AnswerLost."""
        lost = LostPrompt(
            prompt_id=prompt_id,
            content=prompt.content,
            path=request.raw_path,
            headers=forwarded_headers(request.raw_headers, "expect", "content-length", *without),
            lost_at_s=time.monotonic(),
        )
        answer = await resubmit(lost, self._lease)
        self._submitted(prompt, answer.status, answer.content)
        return response_of(answer)

    def _submitted(self, prompt: PromptBody, status: int, content: bytes) -> None:
        """Registers an accepted prompt. Its messages may have come before the response."""
        prompt_id = accepted_id(status, content)
        if prompt_id is None:
            return
        if prompt.has_our_client_id:
            self._feed.submitted(prompt_id)
        elif prompt.client_id:
            self._registry.expect(prompt.client_id, prompt_id)
        self._registry.renew_deaf_sockets()


def _is_upgrade(request: web.BaseRequest) -> bool:
    connection = request.headers.get("Connection", "").lower()
    return request.headers.get("Upgrade", "").lower() == "websocket" and "upgrade" in connection


def _listening_sockets(port: int) -> list[socket.socket]:
    """Listens on 127.0.0.1, and on ::1 if that is possible. Raises: OSError."""
    first = _listener(socket.AF_INET, ("127.0.0.1", port))
    with suppress(OSError):
        return [first, _listener(socket.AF_INET6, ("::1", first.getsockname()[1]))]
    return [first]


def _listener(family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made
