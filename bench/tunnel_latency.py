"""Latency of small requests through the tunnel while thirty websockets are busy.

The reference is the same request directly to ComfyUI's port with the same delay: the round trip. Both
alternate.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import requests
import websocket

from bench.delay_proxy import delay_proxy
from bench.table import Figure, Row, at_most, median, percentile
from bench.testbed import Link, Testbed
from bench.websocket_load import websocket_load
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.ssh.connection import Connection, ConnectionOptions, open_connection
from comfyui_workflow.ssh.known_hosts import KnownHosts

WEBSOCKETS = 30
MAX_MS_MORE = 10.0
REQUESTS = 20
"""For each of the table's runs."""
PAUSE_S = 0.005
TIMEOUT_S = 30.0


def rows(
    testbed: Testbed, runs: int, websockets: int = WEBSOCKETS, requests_a_run: int = REQUESTS
) -> Iterator[Row]:
    with websocket_load() as port:
        for link in testbed.links:
            with (
                _connection(testbed, link, port) as connection,
                _direct(link, port) as direct_url,
                ExitStack() as stack,
            ):
                noises = [stack.enter_context(_listening(connection.base_url)) for _ in range(websockets)]
                _wait_until_heard(noises)
                askers = Asker(connection.base_url), Asker(direct_url)
                yield _latency(link, askers, runs * requests_a_run, websockets)


def _latency(link: Link, askers: tuple["Asker", "Asker"], count: int, websockets: int) -> Row:
    through_tunnel, direct = askers
    pairs = [(through_tunnel.timed_ms(), direct.timed_ms()) for _ in range(count)]
    ours_ms, direct_ms = zip(*pairs, strict=True)
    p90_ms, round_trip_ms = percentile(ours_ms, 90), median(direct_ms)
    return Row(
        work=f"GET /prompt through the tunnel beside {websockets} busy websockets, {link.name}",
        ours=Figure(value=p90_ms, unit="ms", about=f"90th percentile; median {median(ours_ms):.1f}"),
        reference=Figure(value=round_trip_ms, unit="ms", about="without SSH, median"),
        against=Figure(value=p90_ms - round_trip_ms, unit="ms more"),
        goal=at_most(MAX_MS_MORE, "ms more"),
        note="All connections use one tunnel. Each websocket receives eight messages a second, at random "
        "times, and is read in the measuring process.",
    )


class Asker:
    """One keep-alive connection with pauses between requests."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/prompt"
        self._session = requests.Session()
        self._session.trust_env = False
        self.timed_ms()

    def timed_ms(self) -> float:
        time.sleep(PAUSE_S)  # measures a response, not a queue of requests
        began_s = time.perf_counter()
        self._session.get(self._url, timeout=TIMEOUT_S).raise_for_status()
        return 1000 * (time.perf_counter() - began_s)


class _Noise:
    def __init__(self) -> None:
        self.heard = 0
        self.is_over = threading.Event()

    def listen(self, socket: websocket.WebSocket) -> None:
        while not self.is_over.is_set():
            if not socket.recv():
                return
            self.heard += 1


@contextmanager
def _listening(base_url: str) -> Iterator[_Noise]:
    noise = _Noise()
    url = base_url.replace("http", "ws", 1) + f"/ws?clientId=noise{id(noise)}"
    socket = websocket.create_connection(url, timeout=TIMEOUT_S, suppress_origin=True)
    thread = threading.Thread(target=noise.listen, args=(socket,), daemon=True)
    thread.start()
    try:
        yield noise
    finally:
        noise.is_over.set()
        thread.join(TIMEOUT_S)
        socket.close(timeout=1)


def _wait_until_heard(noises: list[_Noise]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while min(noise.heard for noise in noises) < 1:
        if time.monotonic() > deadline_s:
            raise TimeoutError("the websockets receive no messages")
        time.sleep(0.05)


@contextmanager
def _connection(testbed: Testbed, link: Link, port: int) -> Iterator[Connection]:
    known_hosts = KnownHosts(testbed.new_directory("known_hosts") / "known_hosts")
    options = ConnectionOptions(known_hosts=known_hosts, key_directory=None)
    connection = open_connection(parse_ssh_address(link.ssh_string), port, options)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def _direct(link: Link, port: int) -> Iterator[str]:
    """Yields the URL of ComfyUI with the same delay, without SSH."""
    with delay_proxy(port, rtt_s=link.round_trip_s) if link.round_trip_s else nullcontext(port) as reached:
        yield f"http://127.0.0.1:{reached}"
