"""A small run on an instance that is connected already: from `execute` to the picture here and the run saved.

Against a bare client at the same ComfyUI, which knows neither SSH nor a disk for its state. The two take
turns. The end of ours is the moment when its record lies among the finished ones, looked for every half
millisecond: asking over HTTP that often would slow down what is measured.
"""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.bare_client import BareClient
from bench.ground import Ground, Way
from bench.table import Figure, Row, at_most, median
from tests.server_process import ServerProcess

MOST_MS_MORE_NEAR = 20.0
MOST_ROUND_TRIPS_MORE_FAR = 3.0
WARM_UPS = 3
REPETITIONS = 4
"""One run takes so little that each of the table's runs is so many."""
LOOK_EVERY_S = 0.0005
LIMIT_S = 60.0
HANDSHAKE_RUNS = 10

_colors = itertools.count(1)


def rows(
    ground: Ground, runs: int, repetitions: int = REPETITIONS, warm_ups: int = WARM_UPS
) -> Iterator[Row]:
    with ServerProcess(ground.new_directory("warm run server")) as server:
        for way in ground.ways:
            yield _compared(ground, server, way, runs * repetitions, warm_ups)
        yield _handshakes(ground, server)


def _compared(ground: Ground, server: ServerProcess, way: Way, runs: int, warm_ups: int) -> Row:
    directory = ground.new_directory("bare outputs")
    ours_ms, reference_ms = [], []
    with BareClient(way.comfyui_url) as bare:
        for _ in range(warm_ups + runs):
            ours_ms.append(_timed_run_ms(ground, server, way))
            reference_ms.append(_timed_bare_run_ms(bare, directory))
    ours, reference = median(ours_ms[warm_ups:]), median(reference_ms[warm_ups:])
    more_ms = ours - reference
    is_near = way.round_trip_s == 0
    return Row(
        work=f"a warm small run through the server, {way.name}",
        ours=Figure(value=ours, unit="ms"),
        reference=Figure(value=reference, unit="ms", about="bare ComfyUI client, no SSH"),
        against=Figure(value=more_ms, unit="ms more")
        if is_near
        else Figure(value=more_ms / way.round_trip_ms, unit="round trips more"),
        goal=at_most(MOST_MS_MORE_NEAR, "ms more")
        if is_near
        else at_most(MOST_ROUND_TRIPS_MORE_FAR, "round trips more"),
        note="From `POST execute` to the picture in the output directory and the finished run on disk, seen "
        "to half a millisecond. The bare client keeps its websocket and its connection open, and saves "
        "nothing but the picture.",
    )


def _timed_run_ms(ground: Ground, server: ServerProcess, way: Way) -> float:
    graph = small_graph()
    began_s = time.perf_counter()
    workflow_id = server.execute(way.ssh_string, graph, comfyui_output_dir=str(ground.sandbox.output_dir))
    _wait_for_record(server.data_dir / "runs" / "finished" / workflow_id)
    took_ms = 1000 * (time.perf_counter() - began_s)
    progress = server.progress(workflow_id)
    if progress["status"] != "completed":
        raise RuntimeError(f"the run did not complete: {progress}")
    return took_ms


def _timed_bare_run_ms(bare: BareClient, directory: Path) -> float:
    graph = small_graph()
    began_s = time.perf_counter()
    bare.run(graph, directory)
    return 1000 * (time.perf_counter() - began_s)


def _wait_for_record(record: Path) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not record.exists():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"the run did not end within {LIMIT_S:.0f} s: {record}")
        time.sleep(LOOK_EVERY_S)


def _handshakes(ground: Ground, server: ServerProcess) -> Row:
    before = ground.login_count()
    for _ in range(HANDSHAKE_RUNS):
        _timed_run_ms(ground, server, ground.near)
    logins = float(ground.login_count() - before)
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
