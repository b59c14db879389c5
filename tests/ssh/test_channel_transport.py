"""Connections of an event loop to a port of the instance, over a real sshd."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import paramiko
import pytest

from comfyui_workflow.errors import ConnectionFailed
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.ssh.connection import Connection, ConnectionOptions, PortRefused, open_connection
from tests.ssh.conftest import LIMIT_S, no_thread_left
from tests.sshd import Sshd

SMALL = b"a request"
LARGE = os.urandom(12 * 1024 * 1024)
"""More than the window of the channel and the buffers of all sockets on the way."""

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Client(asyncio.Protocol):
    """Records what happens to it."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.is_paused = False
        self.was_paused = False
        self.changed = asyncio.Event()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.changed.set()

    def pause_writing(self) -> None:
        self.is_paused = self.was_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False
        self.changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        assert not self.lost.is_set()
        self.lost.set()
        self.changed.set()

    async def until(self, is_true: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not is_true():
                self.changed.clear()
                await self.changed.wait()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


def run(connection: Connection, serve: Serve, use: Callable[[Client], Awaitable[None]]) -> None:
    """Connects a client to a server on the instance, and runs `use` with it."""

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            connection.lead_to(server.sockets[0].getsockname()[1])
            client = await connection.connect(Client)
            await use(client)
            client.transport.abort()
            await client.until(client.lost.is_set)

    asyncio.run(main())


async def goes_both_ways(client: Client) -> None:
    client.transport.write(SMALL)
    await client.until(lambda: client.received == SMALL)
    for start in range(0, len(LARGE), 100_000):
        await client.until(lambda: not client.is_paused)
        client.transport.write(LARGE[start : start + 100_000])
    await client.until(lambda: len(client.received) == len(SMALL) + len(LARGE))
    assert client.received == SMALL + LARGE


def test_small_and_large_data_goes_both_ways(connection: Connection) -> None:
    run(connection, echo, goes_both_ways)


def test_data_goes_through_a_jump_host(server: Sshd, options: ConnectionOptions, tmp_path: Path) -> None:
    with Sshd(tmp_path / "bastion") as bastion:
        bastion.authorize(server.key_file)
        jump = f" -J {bastion.user}@{bastion.host}:{bastion.port}"
        connection = open_connection(parse_ssh_address(server.ssh_string() + jump), 1, options)
        try:
            run(connection, echo, goes_both_ways)
        finally:
            connection.close()


def test_a_client_that_does_not_read_gets_everything_later(connection: Connection) -> None:
    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(LARGE)
        await writer.drain()
        writer.close()

    async def use(client: Client) -> None:
        await client.until(lambda: bool(client.received))
        client.transport.pause_reading()
        count = len(client.received)
        await asyncio.sleep(0)
        assert len(client.received) == count
        client.transport.resume_reading()
        await client.until(client.lost.is_set)
        assert client.received == LARGE

    run(connection, send, use)


def test_what_was_written_before_the_close_arrives(connection: Connection) -> None:
    arrived = bytearray()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.extend(await reader.read())
        writer.close()
        is_over.set()

    async def use(client: Client) -> None:
        client.transport.write(LARGE)
        client.transport.close()
        client.transport.write(b"too late")
        async with asyncio.timeout(LIMIT_S):
            await is_over.wait()

    is_over = asyncio.Event()
    run(connection, receive, use)
    assert arrived == LARGE


def test_the_end_of_the_server_is_noticed(connection: Connection) -> None:
    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SMALL)
        writer.close()

    async def use(client: Client) -> None:
        await client.until(client.lost.is_set)
        assert client.received == SMALL and client.transport.is_closing()

    run(connection, end, use)


def test_the_end_of_the_connection_is_noticed(connection: Connection, server: Sshd) -> None:
    async def use(client: Client) -> None:
        server.kill_connections()
        await client.until(client.lost.is_set)

    run(connection, echo, use)


def test_a_frozen_instance_does_not_block_the_loop(connection: Connection, server: Sshd) -> None:
    async def use(client: Client) -> None:
        server.freeze()
        began_s = asyncio.get_running_loop().time()
        while not client.is_paused:
            client.transport.write(bytes(10_000))
        client.transport.write(LARGE)
        assert asyncio.get_running_loop().time() - began_s < LIMIT_S / 2
        assert client.transport.get_write_buffer_size() > len(LARGE)
        server.thaw()
        await client.until(lambda: not client.is_paused)
        assert client.transport.get_write_buffer_size() == 0

    run(connection, echo, use)


def test_a_server_that_does_not_read_holds_no_thread_after_the_client_gave_up(
    connection: Connection,
) -> None:
    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await is_over.wait()
        writer.close()

    async def use(client: Client) -> None:
        client.transport.write(LARGE)
        while client.transport._channel.out_window_size:  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)
        client.transport.abort()
        is_over.set()

    is_over = asyncio.Event()
    with no_thread_left():
        run(connection, ignore, use)


def test_a_port_where_nothing_listens_is_told_before_anything_is_sent(connection: Connection) -> None:
    connection.lead_to(1)
    with pytest.raises(PortRefused, match="Nothing listens on port 1 of the instance"):
        asyncio.run(connection.connect(Client))


def test_a_lost_connection_is_told(connection: Connection) -> None:
    connection.close()
    with pytest.raises(ConnectionFailed):
        asyncio.run(connection.connect(Client))


def test_a_channel_that_nobody_waits_for_any_more_is_closed(connection: Connection) -> None:
    async def main() -> None:
        is_closed = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()
            is_closed.set()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            connection.lead_to(server.sockets[0].getsockname()[1])
            connecting = asyncio.create_task(connection.connect(Client))
            await asyncio.sleep(0)
            connecting.cancel()
            async with asyncio.timeout(LIMIT_S):
                await is_closed.wait()
            assert connecting.cancelled()

    asyncio.run(main())


def test_many_channels_are_opened_at_once_without_a_thread(connection: Connection, server: Sshd) -> None:
    async def main() -> None:
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as listener:
            connection.lead_to(listener.sockets[0].getsockname()[1])
            server.freeze()
            count = threading.active_count()
            connecting = [asyncio.create_task(connection.connect(Client)) for _ in range(20)]
            for _ in range(5):  # lets them send their requests
                await asyncio.sleep(0)
            assert threading.active_count() == count
            server.thaw()
            for client in await asyncio.gather(*connecting):
                client.transport.write(SMALL)
                await client.until(lambda client=client: client.received == SMALL)
                client.transport.abort()

    asyncio.run(main())


def test_the_end_of_the_connection_ends_the_opening_of_a_channel(
    connection: Connection, server: Sshd
) -> None:
    async def main() -> None:
        server.freeze()
        connecting = asyncio.create_task(connection.connect(Client))
        await asyncio.sleep(0)
        began_s = asyncio.get_running_loop().time()
        connection.close()
        with pytest.raises(ConnectionFailed, match="was cut"):
            await connecting
        assert asyncio.get_running_loop().time() - began_s < LIMIT_S / 2

    try:
        asyncio.run(main())
    finally:
        server.thaw()


def test_channels_that_are_refused_at_once_are_each_told_why(connection: Connection) -> None:
    async def main() -> list[Client | BaseException]:
        connection.lead_to(1)
        connecting = [connection.connect(Client) for _ in range(5)]
        return await asyncio.gather(*connecting, return_exceptions=True)

    reasons = [each.__cause__ for each in asyncio.run(main()) if isinstance(each, PortRefused)]
    assert [type(each) for each in reasons] == [paramiko.ChannelException] * 5


def test_data_arrives_after_a_message_without_data(connection: Connection) -> None:
    async def use(client: Client) -> None:
        client.transport._channel.in_buffer.feed(b"")  # type: ignore[attr-defined] # paramiko feeds any message
        await asyncio.sleep(0)  # lets the transport look at it
        client.transport.write(SMALL)
        await client.until(lambda: client.received == SMALL)

    run(connection, echo, use)
