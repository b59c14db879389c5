"""Small requests through the tunnel while thirty websockets there are busy.

Against the same requests at ComfyUI's own port over the same delay: that is the round trip. They take turns.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import requests
import websocket

from bench.ground import Ground, Way
from bench.table import Figure, Row, at_most, median, percentile
from comfyui_workflow.instances.address import parse_ssh_address
from comfyui_workflow.instances.connection import Connection, ConnectionOptions, open_connection
from comfyui_workflow.instances.host_keys import KnownHosts

WEBSOCKETS = 30
MOST_MS_MORE = 10.0
REQUESTS = 20
"""Of each of the table's runs."""
PAUSE_S = 0.005
TIMEOUT_S = 30.0
STEP_S = 0.1
STEP_DELAY_S = 0.15
MOST_STEPS = 10_000
"""Four steps a second, and two messages a step."""


def rows(
    ground: Ground, runs: int, websockets: int = WEBSOCKETS, requests_a_run: int = REQUESTS
) -> Iterator[Row]:
    for way in ground.ways:
        with _busy_comfyui(ground), _connection(ground, way) as connection, ExitStack() as stack:
            noises = [stack.enter_context(_listening(connection.base_url)) for _ in range(websockets)]
            _wait_until_heard(noises)
            yield _latency(way, connection, runs * requests_a_run, len(noises))


def _latency(way: Way, connection: Connection, count: int, websockets: int) -> Row:
    through_tunnel, direct = Asker(connection.base_url), Asker(way.comfyui_url)
    pairs = [(through_tunnel.timed_ms(), direct.timed_ms()) for _ in range(count)]
    ours_ms, direct_ms = zip(*pairs, strict=True)
    p90_ms, round_trip_ms = percentile(ours_ms, 90), median(direct_ms)
    return Row(
        work=f"GET /prompt through the tunnel beside {websockets} busy websockets, {way.name}",
        ours=Figure(value=p90_ms, unit="ms", about=f"90th percentile; median {median(ours_ms):.1f}"),
        reference=Figure(value=round_trip_ms, unit="ms", about="without SSH, median"),
        against=Figure(value=p90_ms - round_trip_ms, unit="ms more"),
        goal=at_most(MOST_MS_MORE, "ms more"),
        note=f"{WEBSOCKETS} websockets through one tunnel, each hearing eight messages a second.",
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
    """`status` greets every socket; the third message is of the prompt."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while min(noise.heard for noise in noises) < 3:
        if time.monotonic() > deadline_s:
            raise TimeoutError("the websockets hear nothing of the prompt")
        time.sleep(0.05)


@contextmanager
def _busy_comfyui(ground: Ground) -> Iterator[None]:
    """A prompt of no client: every socket hears of its steps."""
    url = ground.sandbox.comfyui_url
    ground.sandbox.faults(step_delay_s=STEP_DELAY_S)
    requests.post(f"{url}/prompt", json={"prompt": slow_graph()}, timeout=TIMEOUT_S).raise_for_status()
    try:
        yield
    finally:
        requests.post(f"{url}/interrupt", timeout=TIMEOUT_S).raise_for_status()
        ground.sandbox.faults(step_delay_s=0.0)


def slow_graph(prefix: str = "busy") -> dict[str, dict[str, object]]:
    empty = {"width": 64, "height": 64, "batch_size": 1, "color": time.monotonic_ns() % 2**24}
    slow = {"image": ["1", 0], "steps": MOST_STEPS, "seconds_per_step": STEP_S}
    return {
        "1": {"class_type": "EmptyImage", "inputs": empty},
        "2": {"class_type": "SandboxSlow", "inputs": slow},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": prefix}},
    }


@contextmanager
def _connection(ground: Ground, way: Way) -> Iterator[Connection]:
    known_hosts = KnownHosts(ground.new_directory("known_hosts") / "known_hosts")
    options = ConnectionOptions(known_hosts=known_hosts, key_directory=None)
    connection = open_connection(parse_ssh_address(way.ssh_string), way.comfyui_port, options)
    try:
        yield connection
    finally:
        connection.close()
