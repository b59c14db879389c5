"""The door in front of the SSH server: it can cut connections, refuse new ones, and freeze those there are.

It stands between the network and asyncssh, so that a frozen connection is as with a frozen machine: TCP still
acknowledges what is sent, and nobody ever answers.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine

log = logging.getLogger(__name__)
_CHUNK_BYTES = 256 * 1024

Serve = Callable[[socket.socket], Coroutine[None, None, None]]


class SSHGate:
    """Listens on one port and hands each connection to `serve`, over a socket pair. For one event loop."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._claim: socket.socket | None = None
        self._address = ("", 0)
        self._listener: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], _Link] = {}
        self._reopen: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[None] | None = None
        self._most_bytes: int | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port (0 asks for a free one). Raises: OSError when it is in use."""
        # Bound but not listening, it keeps the port ours while new connections are refused.
        self._claim = _bound_socket(host, port)
        self._address = self._claim.getsockname()
        try:
            await self._accept_on(self._listening_socket())
        except OSError:
            self._claim.close()
            raise
        return self._address[1]

    async def stop(self) -> None:
        if self._reopen:
            self._reopen.cancel()
        self._shut()
        self.cut()
        if self._links:
            await asyncio.wait(self._links)
        if self._claim:
            self._claim.close()

    def cut(self) -> None:
        """Drop every connection at once, as when the machine's network goes away."""
        for task, link in self._links.items():
            link.abort()
            task.cancel()

    def refuse(self, seconds: float) -> None:
        """Answer new connections with "connection refused" for so long; those there are live on."""
        self._shut()
        if self._reopen:
            self._reopen.cancel()
        self._reopen = asyncio.get_running_loop().call_later(seconds, self._open_again)

    def freeze(self, seconds: float) -> None:
        """Stop answering on the connections there are, for so long; new ones are served."""
        for link in self._links.values():
            link.freeze(seconds)

    def carry_at_most(self, byte_count: int | None) -> None:
        """Cut every connection when it has brought so many bytes from here; None: as many as it likes."""
        self._most_bytes = byte_count
        for link in self._links.values():
            link.most_bytes = byte_count

    def open_now(self) -> None:
        """End every misbehaviour before its time."""
        self.carry_at_most(None)
        if self._reopen:
            self._reopen.cancel()
            self._open_again()
        for link in self._links.values():
            link.thaw()

    def _shut(self) -> None:
        if self._listener:
            self._listener.close()
            self._listener = None

    def _open_again(self) -> None:
        self._reopen = None
        self._opening = asyncio.create_task(self._accept_on(self._listening_socket()))

    def _listening_socket(self) -> socket.socket:
        listening = _bound_socket(*self._address)
        try:
            listening.listen()
        except OSError:
            listening.close()
            raise
        return listening

    async def _accept_on(self, listening: socket.socket) -> None:
        self._listener = await asyncio.start_server(self._connected, sock=listening, limit=_CHUNK_BYTES)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(reader, writer)
        link.most_bytes = self._most_bytes
        task = asyncio.create_task(link.carry(self._serve))
        self._links[task] = link
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._links.pop(task).thaw()
        if not task.cancelled() and (error := task.exception()):
            log.debug("An SSH connection ended: %s", error)


class _Link:
    """One connection: bytes pass both ways until an end closes, or it is aborted."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._thaw: asyncio.TimerHandle | None = None
        self.most_bytes: int | None = None

    async def carry(self, serve: Serve) -> None:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours, limit=_CHUNK_BYTES)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(serve(theirs))
                tasks.create_task(self._pump(self._reader, writer))
                tasks.create_task(self._pump(reader, self._writer, is_counted=True))
        finally:
            writer.transport.abort()
            self._writer.close()

    def abort(self) -> None:
        self._writer.transport.abort()

    def freeze(self, seconds: float) -> None:
        self.thaw()
        self._flowing.clear()
        self._thaw = asyncio.get_running_loop().call_later(seconds, self._flowing.set)

    def thaw(self) -> None:
        self._flowing.set()
        if self._thaw:
            self._thaw.cancel()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_counted: bool = False
    ) -> None:
        carried_bytes = 0
        while data := await source.read(_CHUNK_BYTES):
            await self._flowing.wait()
            carried_bytes += len(data)
            if is_counted and self.most_bytes is not None and carried_bytes > self.most_bytes:
                raise ConnectionAbortedError
            sink.write(data)
            await sink.drain()
        sink.close()


def _bound_socket(host: str, port: int) -> socket.socket:
    """SO_REUSEADDR lets sockets share the port as long as none listens; where one does, it says no."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound
