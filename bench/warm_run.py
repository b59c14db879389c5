"""A small run on a connected instance: from `execute` until the picture is downloaded and the run is saved.

The reference is a bare client of the same ComfyUI, without SSH and without saved state. Both alternate.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from bench.bare_client import BareClient
from bench.our_client import OurClient
from bench.table import Figure, Goal, Row, at_most, median
from bench.testbed import Link, Testbed
from tests.server_process import ServerProcess

WARM_UPS = 3
REPETITIONS = 4
"""A run is so short that each of the table's runs is repeated."""
HANDSHAKE_RUNS = 10
NOTE = (
    "From `POST execute` until the picture is in the output directory and the finished run is on disk; "
    "resolution 0.5 ms. The bare client keeps its websocket and its connection open too, and saves only the "
    "picture."
)

Result = TypeVar("Result")

_colors = itertools.count(1)


def rows(
    testbed: Testbed, runs: int, repetitions: int = REPETITIONS, warm_ups: int = WARM_UPS
) -> Iterator[Row]:
    with ServerProcess(testbed.new_directory("warm run server")) as server:
        for link in testbed.links:
            with _client(testbed, server, link) as ours, BareClient(link.comfyui_url) as bare:
                yield _compared(testbed, link, (ours, bare), runs * repetitions, warm_ups)
        with _client(testbed, server, testbed.near) as ours:
            yield _handshakes(testbed, ours)


def _client(testbed: Testbed, server: ServerProcess, link: Link) -> OurClient:
    return OurClient(server, link.ssh_string, testbed.sandbox.output_dir)


def _compared(
    testbed: Testbed, link: Link, clients: tuple[OurClient, BareClient], runs: int, warm_ups: int
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
    return _row(link, median(ours_ms[warm_ups:]), median(bare_ms[warm_ups:]))


def _row(link: Link, ours_ms: float, bare_ms: float) -> Row:
    against, goal = _difference(link, ours_ms - bare_ms)
    return Row(
        work=f"a warm small run through the server, {link.name}",
        ours=Figure(value=ours_ms, unit="ms"),
        reference=Figure(value=bare_ms, unit="ms", about="bare ComfyUI client, no SSH"),
        against=against,
        goal=goal,
        note=NOTE,
    )


def _difference(link: Link, more_ms: float) -> tuple[Figure, Goal]:
    """Returns the difference: in milliseconds near, in round trips far away."""
    if link.round_trip_s:
        unit = "round trips more"
        return Figure(value=more_ms / link.round_trip_ms, unit=unit), at_most(3, unit)
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
        work=f"SSH handshakes in {HANDSHAKE_RUNS} more runs",
        ours=Figure(value=logins, unit=""),
        reference="0",
        against=Figure(value=logins, unit=""),
        goal=at_most(0),
        note="Logins counted in sshd's log.",
    )


def small_graph() -> dict[str, Any]:
    """Returns a new graph each time, so that nothing comes from ComfyUI's cache."""
    color = next(_colors)
    inputs = {"width": 64, "height": 64, "batch_size": 1, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": inputs},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "bench"}},
    }
