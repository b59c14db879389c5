"""TCP proxy in front of the SSH server. It can abort connections, refuse new ones, and freeze existing ones.

How it works: the proxy accepts each connection and relays its bytes to asyncssh over a socket pair. The bytes
of a frozen connection are not relayed, so the client sees a frozen machine: TCP still acknowledges data, but
no answer comes.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine

log = logging.getLogger(__name__)
_CHUNK_BYTES = 256 * 1024

Serve = Callable[[socket.socket], Coroutine[None, None, None]]


class SSHGate:
    """Listens on one port and passes each connection to `serve`, over a socket pair. For one event loop."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._reserved: socket.socket | None = None
        self._address = ("", 0)
        self._listener: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], _Connection] = {}
        self._reopen_timer: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[None] | None = None
        self._most_bytes: int | None = None

    async def start(self, host: str, port: int) -> int:
        """Listens, and returns the port (0: a free one). Raises: OSError if the port is in use."""
        # This socket is bound but does not listen: it reserves the port while new connections are refused.
        self._reserved = _bound_socket(host, port)
        self._address = self._reserved.getsockname()
        try:
            await self._accept_on(self._listening_socket())
        except OSError:
            self._reserved.close()
            raise
        return self._address[1]

    async def stop(self) -> None:
        if self._reopen_timer:
            self._reopen_timer.cancel()
        self._stop_listening()
        self.cut()
        if self._connections:
            await asyncio.wait(self._connections)
        if self._reserved:
            self._reserved.close()

    def cut(self) -> None:
        """Aborts all connections, as if the machine had lost its network."""
        for task, connection in self._connections.items():
            connection.abort()
            task.cancel()

    def refuse(self, seconds: float) -> None:
        """Refuses new connections ("connection refused") for a time. Existing ones are not affected."""
        self._stop_listening()
        if self._reopen_timer:
            self._reopen_timer.cancel()
        self._reopen_timer = asyncio.get_running_loop().call_later(seconds, self._listen_again)

    def freeze(self, seconds: float) -> None:
        """Freezes the existing connections for a time. New connections work."""
        for connection in self._connections.values():
            connection.freeze(seconds)

    def limit_bytes(self, byte_count: int | None) -> None:
        """Aborts a connection after it has sent `byte_count` bytes to the client; None: no limit."""
        self._most_bytes = byte_count
        for connection in self._connections.values():
            connection.most_bytes = byte_count

    def clear(self) -> None:
        """Ends all faults now."""
        self.limit_bytes(None)
        if self._reopen_timer:
            self._reopen_timer.cancel()
            self._listen_again()
        for connection in self._connections.values():
            connection.thaw()

    def _stop_listening(self) -> None:
        if self._listener:
            self._listener.close()
            self._listener = None

    def _listen_again(self) -> None:
        self._reopen_timer = None
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
        connection = _Connection(reader, writer)
        connection.most_bytes = self._most_bytes
        task = asyncio.create_task(connection.relay(self._serve))
        self._connections[task] = connection
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._connections.pop(task).thaw()
        if not task.cancelled() and (error := task.exception()):
            log.debug("An SSH connection ended: %s", error)


class _Connection:
    """One connection. Bytes are relayed in both directions until one side closes, or it is aborted."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._thaw_timer: asyncio.TimerHandle | None = None
        self.most_bytes: int | None = None

    async def relay(self, serve: Serve) -> None:
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
        self._thaw_timer = asyncio.get_running_loop().call_later(seconds, self._flowing.set)

    def thaw(self) -> None:
        self._flowing.set()
        if self._thaw_timer:
            self._thaw_timer.cancel()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_counted: bool = False
    ) -> None:
        relayed_bytes = 0
        while data := await source.read(_CHUNK_BYTES):
            await self._flowing.wait()
            relayed_bytes += len(data)
            if is_counted and self.most_bytes is not None and relayed_bytes > self.most_bytes:
                raise ConnectionAbortedError
            sink.write(data)
            await sink.drain()
        sink.close()


def _bound_socket(host: str, port: int) -> socket.socket:
    """Returns a socket that is bound to the port. With SO_REUSEADDR, sockets can share a port as long as none
    of them listens. Raises: OSError, if another socket listens on the port."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound
