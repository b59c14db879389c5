"""A small run on an instance that is connected already: from `execute` to the picture here and the run saved.

Against a bare client at the same ComfyUI, which knows neither SSH nor a disk for its state. The two take
turns.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from bench.bare_client import BareClient
from bench.our_client import OurClient
from bench.table import Figure, Goal, Row, at_most, median
from bench.testbed import Testbed, Way
from tests.server_process import ServerProcess

WARM_UPS = 3
REPETITIONS = 4
"""One run takes so little that each of the table's runs is so many."""
HANDSHAKE_RUNS = 10
NOTE = (
    "From `POST execute` to the picture in the output directory and the finished run on disk, seen to half a "
    "millisecond. The bare client keeps its websocket and its connection open too, and saves nothing but the "
    "picture."
)

Result = TypeVar("Result")

_colors = itertools.count(1)


def rows(
    testbed: Testbed, runs: int, repetitions: int = REPETITIONS, warm_ups: int = WARM_UPS
) -> Iterator[Row]:
    with ServerProcess(testbed.new_directory("warm run server")) as server:
        for way in testbed.ways:
            with _client(testbed, server, way) as ours, BareClient(way.comfyui_url) as bare:
                yield _compared(testbed, way, (ours, bare), runs * repetitions, warm_ups)
        with _client(testbed, server, testbed.near) as ours:
            yield _handshakes(testbed, ours)


def _client(testbed: Testbed, server: ServerProcess, way: Way) -> OurClient:
    return OurClient(server, way.ssh_string, testbed.sandbox.output_dir)


def _compared(
    testbed: Testbed, way: Way, clients: tuple[OurClient, BareClient], runs: int, warm_ups: int
) -> Row:
    ours, bare = clients
    directory = testbed.new_directory("warm run outputs")
    ours_ms, bare_ms = [], []
    for _ in range(warm_ups + runs):
        took_ms, run_id = _timed_ms(lambda: ours.run(small_graph(), directory))
        ours.check(run_id)
        ours_ms.append(took_ms)
        took_ms, _file = _timed_ms(lambda: bare.run(small_graph(), directory))
        bare_ms.append(took_ms)
    return _row(way, median(ours_ms[warm_ups:]), median(bare_ms[warm_ups:]))


def _row(way: Way, ours_ms: float, bare_ms: float) -> Row:
    against, goal = _difference(way, ours_ms - bare_ms)
    return Row(
        work=f"a warm small run through the server, {way.name}",
        ours=Figure(value=ours_ms, unit="ms"),
        reference=Figure(value=bare_ms, unit="ms", about="bare ComfyUI client, no SSH"),
        against=against,
        goal=goal,
        note=NOTE,
    )


def _difference(way: Way, more_ms: float) -> tuple[Figure, Goal]:
    """In milliseconds near, in round trips far away."""
    if way.round_trip_s:
        unit = "round trips more"
        return Figure(value=more_ms / way.round_trip_ms, unit=unit), at_most(3, unit)
    return Figure(value=more_ms, unit="ms more"), at_most(20, "ms more")


def _timed_ms(work: Callable[[], Result]) -> tuple[float, Result]:
    began_s = time.perf_counter()
    result = work()
    return 1000 * (time.perf_counter() - began_s), result


def _handshakes(testbed: Testbed, ours: OurClient) -> Row:
    directory = testbed.new_directory("handshake outputs")
    before = testbed.login_count()
    for _ in range(HANDSHAKE_RUNS):
        ours.run(small_graph(), directory)
    logins = float(testbed.login_count() - before)
    return Row(
        work=f"SSH handshakes in {HANDSHAKE_RUNS} more runs there",
        ours=Figure(value=logins, unit=""),
        reference="0",
        against=Figure(value=logins, unit=""),
        goal=at_most(0),
        note="Logins counted in sshd's log.",
    )


def small_graph() -> dict[str, Any]:
    """Never the same twice, so that nothing comes from ComfyUI's cache."""
    color = next(_colors)
    inputs = {"width": 64, "height": 64, "batch_size": 1, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": inputs},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "bench"}},
    }
