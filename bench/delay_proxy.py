"""A TCP proxy that simulates a round-trip time on one machine: half of the delay in each direction.

    with delay_proxy(sshd.port, rtt_s=0.08) as port: ...      # in a separate process
    python -m bench.delay_proxy --to 127.0.0.1:22 --rtt 0.08   # prints its port; ends when its input does

The proxy does not change the throughput, the order of bytes and the half-close. Opening a connection costs
one round trip too. TCP ends at the proxy: windows and round trips of SSH are modelled; loss, bandwidth and
TCP's own slow start are not.
"""

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

PIECE_BYTES = 256 * 1024
# Maximum in flight in one direction: more than the largest SSH window between the two ends.
MAX_PIECES = 4096


@contextlib.contextmanager
def delay_proxy(port: int, *, rtt_s: float, host: str = "127.0.0.1") -> Iterator[int]:
    """Yields the port of 127.0.0.1 to use instead of `port`. The proxy process ends with the block or with
    this process."""
    command = [sys.executable, "-m", "bench.delay_proxy", "--to", f"{host}:{port}", "--rtt", str(rtt_s)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


class DelayProxy:
    def __init__(self, host: str, port: int, rtt_s: float) -> None:
        self._host = host
        self._port = port
        self._rtt_s = rtt_s

    async def start(self) -> int:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=PIECE_BYTES)
        return int(server.sockets[0].getsockname()[1])

    async def _serve(self, near: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        """Forwards one connection. An error on either side closes both."""
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(near_writer.close)
            try:
                await self._join(near, near_writer, stack)
            except* OSError:
                pass

    async def _join(
        self, near: asyncio.StreamReader, near_writer: asyncio.StreamWriter, stack: contextlib.AsyncExitStack
    ) -> None:
        to_far, to_near = _Pieces(MAX_PIECES), _Pieces(MAX_PIECES)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_collect(near, to_far, self._rtt_s / 2))
            await asyncio.sleep(1.5 * self._rtt_s)  # SYN, SYN-ACK, ACK: then the far side accepts
            far, far_writer = await asyncio.open_connection(self._host, self._port, limit=PIECE_BYTES)
            stack.callback(far_writer.close)
            tasks.create_task(_collect(far, to_near, self._rtt_s / 2))
            tasks.create_task(_deliver(to_near, near_writer))
            tasks.create_task(_deliver(to_far, far_writer))


_Pieces = asyncio.Queue[tuple[float, bytes]]


async def _collect(reader: asyncio.StreamReader, pieces: _Pieces, delay_s: float) -> None:
    """Reads until the end and queues each piece with its delivery time; the last piece is empty."""
    clock = asyncio.get_running_loop().time
    data = b"at first"
    while data:
        data = await reader.read(PIECE_BYTES)
        await pieces.put((clock() + delay_s, data))


async def _deliver(pieces: _Pieces, writer: asyncio.StreamWriter) -> None:
    clock = asyncio.get_running_loop().time
    while True:
        due_at, data = await pieces.get()
        await asyncio.sleep(max(0.0, due_at - clock()))
        if not data:
            break
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--to", required=True, metavar="HOST:PORT")
    parser.add_argument("--rtt", type=float, required=True, metavar="SECONDS")
    arguments = parser.parse_args()
    host, _, port = arguments.to.rpartition(":")
    sys.stdout.write(f"{await DelayProxy(host, int(port), arguments.rtt).start()}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)  # asyncio would log errors for the open connections


if __name__ == "__main__":
    asyncio.run(_main())
