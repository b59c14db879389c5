"""Load test of the HTTP server: many pages that poll, and many idle or slow connections. Run it manually:

python -m bench.crowd --pages 2000 --idle 5000 --dripping 200 --seconds 30

Prints the latency of `GET progress` for the pages, and the CPU time, memory and files of the server.
"""

import argparse
import asyncio
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from bench.open_pages import fill
from tests.server_process import ServerProcess

POLL_EVERY_S = 2.0
DRIP_EVERY_S = 5.0
ANSWER_LIMIT_S = 30.0
OPENED_AT_ONCE = 100


@dataclass
class Seen:
    took_s: list[float] = field(default_factory=list)
    failures: int = 0
    first_failure: str = ""

    def failed(self, error: Exception) -> None:
        self.failures += 1
        self.first_failure = self.first_failure or f"{type(error).__name__}: {error}"


@dataclass(frozen=True, kw_only=True)
class Crowd:
    pages: int
    idle: int
    dripping: int
    seconds: float
    poll_every_s: float


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    asked.add_argument("--pages", type=int, default=2000)
    asked.add_argument("--idle", type=int, default=5000)
    asked.add_argument("--dripping", type=int, default=0, help="connections that send a byte every 5 s")
    asked.add_argument("--seconds", type=float, default=30.0)
    asked.add_argument(
        "--every", type=float, default=POLL_EVERY_S, help="seconds between two polls of a page"
    )
    given = asked.parse_args()
    crowd = Crowd(
        pages=given.pages,
        idle=given.idle,
        dripping=given.dripping,
        seconds=given.seconds,
        poll_every_s=given.every,
    )
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as directory:
        server = ServerProcess(Path(directory))
        fill(server.data_dir, 10)
        with server:
            path = f"/{server.get('?limit=1')['workflows'][0]['workflow_id']}/progress"
            asyncio.run(_measure(server, urlsplit(server.url + path).path, crowd))


async def _measure(server: ServerProcess, path: str, crowd: Crowd) -> None:
    port = urlsplit(server.url).port
    assert port is not None
    before_kb = memory_kb(server.pid)
    seen, warming = Seen(), Seen()
    others = multiprocessing.get_context("spawn").Process(
        target=_hold_all, args=(port, crowd.idle, crowd.dripping), daemon=True
    )
    others.start()
    await asyncio.sleep(8)
    gate = asyncio.Semaphore(OPENED_AT_ONCE)
    starts = (each * crowd.poll_every_s / crowd.pages for each in range(crowd.pages))
    counted = [warming]
    works = [
        asyncio.create_task(_page(port, path, crowd, start_s=start, gate=gate, counted=counted))
        for start in starts
    ]
    await asyncio.sleep(2 * crowd.poll_every_s)
    counted[0] = seen
    cpu_s, at_s = cpu_seconds(server.pid), time.monotonic()
    await asyncio.sleep(crowd.seconds)
    passed_s = time.monotonic() - at_s
    busy = 100 * (cpu_seconds(server.pid) - cpu_s) / passed_s
    print(
        f"{crowd.pages} pages, {crowd.idle} idle, {crowd.dripping} dripping, {passed_s:.0f} s: "
        f"{len(seen.took_s) / passed_s:.0f} answers/s, p50 {1000 * quantile(seen.took_s, 0.5):.1f} ms, "
        f"p99 {1000 * quantile(seen.took_s, 0.99):.1f} ms, failures {seen.failures} {seen.first_failure}; "
        f"CPU {busy:.0f} % of a core, memory {before_kb // 1024} -> {memory_kb(server.pid) // 1024} MB, "
        f"open files {len(list(Path(f'/proc/{server.pid}/fd').iterdir()))}"
    )
    others.kill()
    for work in works:
        work.cancel()
    await asyncio.gather(*works, return_exceptions=True)


async def _page(
    port: int, path: str, crowd: Crowd, *, start_s: float, gate: asyncio.Semaphore, counted: list[Seen]
) -> None:
    await asyncio.sleep(start_s)
    due_s = time.monotonic()
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    while True:
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        due_s = max(due_s + crowd.poll_every_s, time.monotonic())
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                if streams is None:
                    async with gate:
                        streams = await asyncio.open_connection("127.0.0.1", port)
                await _ask(*streams, path)
            counted[0].took_s.append(time.monotonic() - began_s)
        except (OSError, EOFError, TimeoutError) as error:
            counted[0].failed(error)
            if streams is not None:
                streams[1].close()
            streams = None


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> None:
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise OSError(head.partition(b"\r\n")[0].decode())
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))


def _hold_all(port: int, idle: int, dripping: int) -> None:
    """Runs in a separate process, so that it does not delay the pages."""

    async def hold() -> None:
        pauses = [0.0] * idle + [DRIP_EVERY_S] * dripping
        await asyncio.gather(*(_hold(port, pause_s) for pause_s in pauses))

    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    asyncio.run(hold())


async def _hold(port: int, drip_every_s: float) -> None:
    """Keeps a connection open that never sends a complete request; reconnects when it is closed."""
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with closing_at_once(writer):
                if drip_every_s:
                    writer.write(b"GET / HTTP/1.1\r\nX: ")
                    dripping = asyncio.create_task(_drip(writer, drip_every_s))
                    try:
                        await reader.read()
                    finally:
                        dripping.cancel()
                else:
                    await reader.read()
        await asyncio.sleep(0.1)


async def _drip(writer: asyncio.StreamWriter, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        writer.write(b"x")


@contextmanager
def closing_at_once(writer: asyncio.StreamWriter) -> Iterator[None]:
    try:
        yield
    finally:
        writer.transport.abort()


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))] if values else float("nan")


def memory_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1])


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


if __name__ == "__main__":
    main()
