"""Small requests through the tunnel while thirty websockets there are busy.

Against the same requests at ComfyUI's own port over the same delay: that is the round trip. They take turns.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import requests
import websocket

from bench.delay_proxy import delay_proxy
from bench.table import Figure, Row, at_most, median, percentile
from bench.testbed import Testbed, Way
from bench.websocket_load import websocket_load
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.ssh.connection import Connection, ConnectionOptions, open_connection
from comfyui_workflow.ssh.known_hosts import KnownHosts

WEBSOCKETS = 30
MOST_MS_MORE = 10.0
REQUESTS = 20
"""Of each of the table's runs."""
PAUSE_S = 0.005
TIMEOUT_S = 30.0


def rows(
    testbed: Testbed, runs: int, websockets: int = WEBSOCKETS, requests_a_run: int = REQUESTS
) -> Iterator[Row]:
    with websocket_load() as port:
        for way in testbed.ways:
            with (
                _connection(testbed, way, port) as connection,
                _direct(way, port) as direct_url,
                ExitStack() as stack,
            ):
                noises = [stack.enter_context(_listening(connection.base_url)) for _ in range(websockets)]
                _wait_until_heard(noises)
                askers = Asker(connection.base_url), Asker(direct_url)
                yield _latency(way, askers, runs * requests_a_run, websockets)


def _latency(way: Way, askers: tuple["Asker", "Asker"], count: int, websockets: int) -> Row:
    through_tunnel, direct = askers
    pairs = [(through_tunnel.timed_ms(), direct.timed_ms()) for _ in range(count)]
    ours_ms, direct_ms = zip(*pairs, strict=True)
    p90_ms, round_trip_ms = percentile(ours_ms, 90), median(direct_ms)
    return Row(
        work=f"GET /prompt through the tunnel beside {websockets} busy websockets, {way.name}",
        ours=Figure(value=p90_ms, unit="ms", about=f"90th percentile; median {median(ours_ms):.1f}"),
        reference=Figure(value=round_trip_ms, unit="ms", about="without SSH, median"),
        against=Figure(value=p90_ms - round_trip_ms, unit="ms more"),
        goal=at_most(MOST_MS_MORE, "ms more"),
        note="All through one tunnel. Each websocket hears eight messages a second, at times of its own, and "
        "is read in the process that asks.",
    )


class Asker:
    """One kept-alive connection, used once in a while."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/prompt"
        self._session = requests.Session()
        self._session.trust_env = False
        self.timed_ms()

    def timed_ms(self) -> float:
        time.sleep(PAUSE_S)  # so that what is measured is an answer, not a queue of questions
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
            raise TimeoutError("the websockets hear nothing")
        time.sleep(0.05)


@contextmanager
def _connection(testbed: Testbed, way: Way, port: int) -> Iterator[Connection]:
    known_hosts = KnownHosts(testbed.new_directory("known_hosts") / "known_hosts")
    options = ConnectionOptions(known_hosts=known_hosts, key_directory=None)
    connection = open_connection(parse_ssh_address(way.ssh_string), port, options)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def _direct(way: Way, port: int) -> Iterator[str]:
    """As far away, without SSH."""
    with delay_proxy(port, rtt_s=way.round_trip_s) if way.round_trip_s else nullcontext(port) as reached:
        yield f"http://127.0.0.1:{reached}"
