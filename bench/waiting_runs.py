"""Waiting runs: resources of ten thousand of them, and idle time of the GPU between runs."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import requests

from bench.many_runs import Cost, slow_graph
from bench.table import Figure, Row, at_most, median, percentile
from bench.testbed import Link, Testbed
from tests.server_process import FINISHED, ServerProcess

LIMIT_S = 300.0
FIRST_AND_LAST = 200


@dataclass(frozen=True, kw_only=True)
class Size:
    waiting: int = 10_000
    in_a_row: int = 40
    execution_s: float = 0.5


FULL = Size()


def rows(testbed: Testbed, runs: int, size: Size = FULL) -> Iterator[Row]:
    with ServerProcess(testbed.new_directory("gaps server")) as server:
        for link in testbed.links:
            yield _gaps(testbed, server, link, size)
    with ServerProcess(testbed.new_directory("waiting server")) as server:
        yield from _waiting(testbed, server, size.waiting)


def _gaps(testbed: Testbed, server: ServerProcess, link: Link, size: Size) -> Row:
    bare_ms = _gaps_of_bare_client(testbed, size)
    ours_ms = _gaps_of_ours(testbed, server, link, size)
    typical_ms = median(ours_ms)
    return Row(
        work=f"GPU idle time between two runs while {size.in_a_row} runs wait, {link.name}",
        ours=Figure(
            value=typical_ms, unit="ms", about=f"median; 99th percentile {percentile(ours_ms, 99):.1f}"
        ),
        reference=f"{median(bare_ms):.1f} ms (all runs in ComfyUI's own queue)",
        against=Figure(value=typical_ms, unit="ms"),
        goal=at_most(100, "ms"),
        note=f"Each run executes for {size.execution_s:g} s; at most two prompts are on the instance.",
    )


def _gaps_of_ours(testbed: Testbed, server: ServerProcess, link: Link, size: Size) -> list[float]:
    before = _lines(testbed)
    body = {
        "ssh_connection": link.ssh_string,
        "workflow": _graph(size.execution_s),
        "matrix": {"1.color": list(range(size.in_a_row))},
        "output_dir": str(server.output_dir),
    }
    batch_id = server.post("/batch", body).json()["batch_id"]
    _until(lambda: server.get(f"/batch/{batch_id}/progress")["progress"]["status"] in FINISHED)
    return _idle_ms(_lines(testbed)[len(before) :])


def _gaps_of_bare_client(testbed: Testbed, size: Size) -> list[float]:
    before = _lines(testbed)
    url = testbed.near.comfyui_url
    for number in range(size.in_a_row):
        graph = _graph(size.execution_s)
        graph["1"]["inputs"]["color"] = 100_000 + number
        requests.post(f"{url}/prompt", json={"prompt": graph}, timeout=10).raise_for_status()
    _until(lambda: not requests.get(f"{url}/prompt", timeout=10).json()["exec_info"]["queue_remaining"])
    return _idle_ms(_lines(testbed)[len(before) :])


def _idle_ms(lines: list[dict[str, Any]]) -> list[float]:
    """Returns the times from the end of each execution to the start of the next one, in ms."""
    return [
        1000 * (after["at"] - before["at"])
        for before, after in pairwise(lines)
        if (before["event"], after["event"]) == ("end", "start")
    ]


def _lines(testbed: Testbed) -> list[dict[str, Any]]:
    log = testbed.sandbox.execution_log
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _graph(execution_s: float) -> dict[str, Any]:
    graph: dict[str, Any] = slow_graph(1)
    graph["2"]["inputs"].update(steps=5, seconds_per_step=execution_s / 5)
    return graph


def _waiting(testbed: Testbed, server: ServerProcess, count: int) -> Iterator[Row]:
    """Measures runs that wait for one instance, which executes the first of them."""
    taken_ms: list[float] = []
    with requests.Session() as session:
        taken_ms += _submit(session, server, testbed.near, FIRST_AND_LAST)
        few = Cost.of(server.pid)
        taken_ms += _submit(session, server, testbed.near, count - FIRST_AND_LAST)
        many = Cost.of(server.pid)
        listing_ms = median(_listing_ms(session, server) for _ in range(20))
    first_ms, last_ms = median(taken_ms[:FIRST_AND_LAST]), median(taken_ms[-FIRST_AND_LAST:])
    what = f"{count:,} waiting runs"
    yield Row(
        work=f"{what}: submitting one more",
        ours=Figure(value=last_ms, unit="ms"),
        reference=f"{first_ms:.2f} ms (the first ones)",
        against=Figure(value=last_ms / first_ms, unit="times"),
        goal=at_most(1.5, "times"),
    )
    listing = Figure(value=listing_ms, unit="ms")
    yield Row(
        work=f"{what}: listing 50", ours=listing, reference="–", against=listing, goal=at_most(50, "ms")
    )
    added = Figure(
        value=(many.threads - few.threads) / (count - FIRST_AND_LAST),
        unit="threads per run",
        about=f"{many.threads} threads and {many.files} open files in total",
    )
    yield Row(
        work=f"{what}: threads", ours=added, reference="–", against=added, goal=at_most(0.01, "threads")
    )
    memory = Figure(value=(many.memory_kb - few.memory_kb) / (count - FIRST_AND_LAST), unit="KB per run")
    yield Row(work=f"{what}: memory", ours=memory, reference="–", against=memory, goal=at_most(20, "KB"))


def _submit(session: requests.Session, server: ServerProcess, link: Link, count: int) -> list[float]:
    body = {
        "ssh_connection": link.ssh_string,
        "workflow": slow_graph(1),
        "output_dir": str(server.output_dir),
    }
    taken_ms = []
    for _ in range(count):
        began_s = time.perf_counter()
        session.post(f"{server.url}/execute", json=body, timeout=LIMIT_S).raise_for_status()
        taken_ms.append(1000 * (time.perf_counter() - began_s))
    return taken_ms


def _listing_ms(session: requests.Session, server: ServerProcess) -> float:
    began_s = time.perf_counter()
    session.get(f"{server.url}?limit=50", timeout=LIMIT_S).raise_for_status()
    return 1000 * (time.perf_counter() - began_s)


def _until(condition: Any) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError("the runs do not end")
        time.sleep(0.1)
