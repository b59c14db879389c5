"""Bursts of prompts and small downloads through a local port, compared with ComfyUI itself and `ssh -L`.

The ways alternate, in either order: each burst starts when ComfyUI's queue is empty, and each picture is a
new file. Pictures through `ssh -L` are downloaded after the others: they take so long that the caches of the
processor are cold for the next download.
"""

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import aiohttp
import requests

from bench.table import Figure, Row, at_most, median
from bench.testbed import Link, Testbed
from bench.warm_run import small_graph
from tests.server_process import ServerProcess

BURSTS = (30, 150)
PICTURES = 40
"""For each of the table's runs."""
PICTURE_BYTES = 3_000
LIMIT_S = 60.0
PAUSE_S = 0.005
MAX_TIMES = 1.5
OURS, DIRECT, SSH = "a local port", "direct", "ssh -L"

Urls = Mapping[str, str]
"""Base URL of ComfyUI by the way to it."""


def rows(
    testbed: Testbed, runs: int, bursts: tuple[int, ...] = BURSTS, pictures: int = PICTURES
) -> Iterator[Row]:
    link = testbed.near
    with ExitStack() as stack:
        server = stack.enter_context(ServerProcess(testbed.new_directory("local port server")))
        port = _local_port(server, link)
        forwarded = stack.enter_context(_forwarded(testbed, link))
        urls = {
            OURS: f"http://127.0.0.1:{port}",
            DIRECT: link.comfyui_url,
            SSH: f"http://127.0.0.1:{forwarded}",
        }
        for url in urls.values():
            _until_answered(url)
        for count in bursts:
            yield _burst_row(count, _measured(urls, runs, lambda url, count=count: _burst_ms(url, count)))
        with ExitStack() as sessions:
            askers = {name: sessions.enter_context(_asker(url)) for name, url in urls.items()}
            directory, count = testbed.sandbox.output_dir, runs * pictures
            through_ssh = {SSH: askers.pop(SSH)}
            taken_ms = _pictures(askers, directory, count) | _pictures(through_ssh, directory, count)
            yield _picture_row(taken_ms)


def _measured(urls: Urls, runs: int, measure: Callable[[str], float]) -> dict[str, float]:
    """Returns the median of each way, in milliseconds. The first round is not counted."""
    rounds = [{name: measure(urls[name]) for name in _in_turn(urls, number)} for number in range(1 + runs)]
    return {name: median(each[name] for each in rounds[1:]) for name in urls}


def _burst_ms(url: str, count: int) -> float:
    """Submits that many prompts at once, each over a new connection."""
    bodies = [{"prompt": small_graph()} for _ in range(count)]
    took_ms = asyncio.run(_submitted_ms(url, bodies))
    _until_idle(url)
    return took_ms


async def _submitted_ms(url: str, bodies: list[dict[str, object]]) -> float:
    timeout = aiohttp.ClientTimeout(total=LIMIT_S)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, raise_for_status=True) as session:

        async def submit(body: dict[str, object]) -> None:
            async with session.post(f"{url}/prompt", json=body) as answer:
                await answer.json()

        began_s = time.perf_counter()
        await asyncio.gather(*map(submit, bodies))
        return 1000 * (time.perf_counter() - began_s)


def _pictures(askers: Mapping[str, Callable[[str], None]], directory: Path, count: int) -> dict[str, float]:
    taken_ms: dict[str, list[float]] = {name: [] for name in askers}
    for number in range(count):
        for name in _in_turn(askers, number):
            file = directory / f"fresh {number} {name}.png"
            file.write_bytes(os.urandom(PICTURE_BYTES))
            time.sleep(PAUSE_S)
            began_s = time.perf_counter()
            askers[name](file.name)
            taken_ms[name].append(1000 * (time.perf_counter() - began_s))
    return {name: median(each) for name, each in taken_ms.items()}


def _in_turn(names: Iterable[str], number: int) -> list[str]:
    """Reverses the order in every other round: what runs after another one may be faster, or slower."""
    return list(names)[:: -1 if number % 2 else 1]


@contextmanager
def _asker(url: str) -> Iterator[Callable[[str], None]]:
    """Yields a function that downloads a picture over a connection that stays open."""
    with requests.Session() as session:
        session.trust_env = False

        def ask(filename: str) -> None:
            parameters = {"filename": filename, "type": "output"}
            answer = session.get(f"{url}/view", params=parameters, timeout=LIMIT_S)
            answer.raise_for_status()
            if len(answer.content) != PICTURE_BYTES:
                raise RuntimeError(f"{len(answer.content)} bytes came")

        yield ask


def _burst_row(count: int, took_ms: Mapping[str, float]) -> Row:
    return _row(
        f"{count} `POST /prompt` at once through a local port",
        took_ms,
        "Until the last response. Each prompt has a new connection.",
    )


def _picture_row(took_ms: Mapping[str, float]) -> Row:
    return _row(
        "`GET /view` of a new picture of 3 KB through a local port",
        took_ms,
        "Over a connection that stays open, one after another.",
    )


def _row(work: str, took_ms: Mapping[str, float], note: str) -> Row:
    return Row(
        work=work,
        ours=Figure(value=took_ms[OURS], unit="ms"),
        reference=Figure(value=took_ms[DIRECT], unit="ms", about=f"directly; `ssh -L` {took_ms[SSH]:.1f} ms"),
        against=Figure(value=took_ms[OURS] / took_ms[DIRECT], unit="times direct"),
        goal=at_most(MAX_TIMES, "times direct"),
        note=note,
    )


def _local_port(server: ServerProcess, link: Link) -> int:
    """Adds the instance, and returns its local port."""
    port = _free_port()
    url = server.url.removesuffix("/workflow") + "/instances"
    body = {"name": "near", "ssh_connection": link.ssh_string, "local_port": port}
    requests.post(url, json=body, timeout=LIMIT_S).raise_for_status()
    return port


@contextmanager
def _forwarded(testbed: Testbed, link: Link) -> Iterator[int]:
    """Yields a port that OpenSSH forwards to ComfyUI."""
    port, sshd = _free_port(), testbed.sshd
    options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes")
    command = ["ssh", "-N", "-q", "-F", "none", "-p", str(sshd.port), "-i", str(sshd.key_file)]
    command += [word for option in options for word in ("-o", option)]
    command += ["-L", f"127.0.0.1:{port}:localhost:{link.comfyui_port}", f"{sshd.user}@{sshd.host}"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            yield port
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _until_answered(url: str) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while True:
        try:
            requests.get(f"{url}/prompt", timeout=LIMIT_S).raise_for_status()
            return
        except requests.ConnectionError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(PAUSE_S)


def _until_idle(url: str) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while requests.get(f"{url}/prompt", timeout=LIMIT_S).json()["exec_info"]["queue_remaining"]:
        if time.monotonic() > deadline_s:
            raise TimeoutError("the queue of ComfyUI does not become empty")
        time.sleep(0.05)
