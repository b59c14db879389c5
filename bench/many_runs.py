"""Two hundred live runs on twenty instances in one server process: resources of a run, request latency.

Twenty ComfyUIs behind one sshd: for the server these are twenty instances, each with a connection. The first
run of each instance executes and sends two messages a second; the others are queued.
"""

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from bench.fleet import Fleet
from bench.table import Figure, Row, at_most, median, percentile
from bench.testbed import Testbed
from tests.server_process import ServerProcess

REQUEST_PAUSE_S = 0.005
FILES_A_CONNECTION = 4
"""Open files of a connection through the tunnel: both ends of a local connection, and of the pipe that wakes
its thread."""
STEP_S = 0.1
MAX_STEPS = 10_000
LIMIT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Size:
    """Windows are measured once for each of the table's runs."""

    instances: int = 20
    runs_on_each: int = 10
    settle_s: float = 3.0
    quiet_window_s: float = 2.0
    requests_a_window: int = 200


FULL = Size()


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Resources of the server process at one time."""

    threads: int
    memory_kb: float
    files: int

    @classmethod
    def of(cls, process_id: int) -> "Cost":
        status = Path(f"/proc/{process_id}/status").read_text().splitlines()
        known = {line.partition(":")[0]: line.partition(":")[2].split() for line in status}
        files = len(list(Path(f"/proc/{process_id}/fd").iterdir()))
        return cls(threads=int(known["Threads"][0]), memory_kb=float(known["VmRSS"][0]), files=files)


def rows(testbed: Testbed, runs: int, size: Size = FULL) -> Iterator[Row]:
    with (
        Fleet(testbed.new_directory("fleet"), count=size.instances) as fleet,
        ServerProcess(
            testbed.new_directory("many runs server"), prompts_per_instance=size.runs_on_each
        ) as server,
    ):
        idle = Cost.of(server.pid)
        ids = _start(testbed, server, fleet.ports)
        time.sleep(size.settle_s)
        connected = Cost.of(server.pid)
        ids += _start(testbed, server, fleet.ports * (size.runs_on_each - 1))
        time.sleep(size.settle_s)
        full = Cost.of(server.pid)
        what = f"{len(ids)} live runs on {size.instances} instances"
        yield _cpu(what, [busy_percent(server.pid, size.quiet_window_s) for _ in range(runs)])
        yield _waiting(what, [_window_ms(server.url, ids, size.requests_a_window) for _ in range(runs)])
        yield from _costs(what, (idle, connected, full), size.instances, len(ids) - size.instances)


def _costs(what: str, costs: tuple[Cost, Cost, Cost], instances: int, more_runs: int) -> Iterator[Row]:
    """`costs`: before the first run, with one run on each instance, and with all runs. Simultaneous requests
    of runs open more connections to their ComfyUI. These belong to the instance, are limited, and are counted
    separately."""
    idle, connected, full = costs
    more_threads = full.threads - connected.threads
    connections = (full.files - connected.files) // FILES_A_CONNECTION
    memory_kb = (full.memory_kb - connected.memory_kb) / more_runs
    note = (
        "Resources of each run after the first one on its instance. The first run and its instance need "
        f"{(connected.threads - idle.threads) / instances:.1f} threads, "
        f"{(connected.files - idle.files) / instances:.1f} open files and "
        f"{(connected.memory_kb - idle.memory_kb) / instances:.0f} KB together. In total the server has "
        f"{full.threads} threads, {full.files} open files and {full.memory_kb / 1024:.0f} MB "
        f"({idle.threads}, {idle.files} and {idle.memory_kb / 1024:.0f} MB before)."
    )
    own = Figure(value=(more_threads - connections) / more_runs, unit="own threads")
    with_connections = f"including {connections} for more connections of {more_runs} runs"
    yield Row(
        work=f"{what}: threads per run",
        ours=Figure(value=more_threads / more_runs, unit="threads", about=with_connections),
        reference="–",
        against=own,
        goal=at_most(1, "thread"),
        note=note,
    )
    memory = Figure(value=memory_kb, unit="KB")
    yield Row(
        work=f"{what}: memory per run",
        ours=memory,
        reference="–",
        against=memory,
        goal=at_most(100, "KB"),
        note=note,
    )


def _cpu(what: str, windows_percent: list[float]) -> Row:
    busy_percent = median(windows_percent)
    return Row(
        work=f"{what}: CPU of the server",
        ours=Figure(value=busy_percent, unit="% of a core"),
        reference="–",
        against=Figure(value=busy_percent, unit="%"),
        note="Without requests for progress.",
    )


def _waiting(what: str, windows_ms: list[list[float]]) -> Row:
    p99_ms = median(percentile(window_ms, 99) for window_ms in windows_ms)
    p50_ms = median(median(window_ms) for window_ms in windows_ms)
    return Row(
        work=f"{what}: `GET progress`",
        ours=Figure(value=p99_ms, unit="ms", about=f"99th percentile; median {p50_ms:.1f}"),
        reference="–",
        against=Figure(value=p99_ms, unit="ms"),
        goal=at_most(50, "ms"),
    )


def _start(testbed: Testbed, server: ServerProcess, ports: list[int]) -> list[str]:
    """Starts one more run on each port; returns when ComfyUI has accepted all of them."""
    sshd = testbed.sshd
    ids = [
        server.execute(sshd.ssh_string(comfyui_port=port), slow_graph(number))
        for number, port in enumerate(ports)
    ]
    for run_id in ids:
        server.until(run_id, _is_accepted, timeout_s=LIMIT_S)
    return ids


def slow_graph(color: int) -> dict[str, dict[str, Any]]:
    """Returns a graph that runs during the whole measurement."""
    empty = {"width": 64, "height": 64, "batch_size": 1, "color": color}
    slow = {"image": ["1", 0], "steps": MAX_STEPS, "seconds_per_step": STEP_S}
    return {
        "1": {"class_type": "EmptyImage", "inputs": empty},
        "2": {"class_type": "SandboxSlow", "inputs": slow},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "slow"}},
    }


def _is_accepted(progress: dict[str, object]) -> bool:
    if progress["error_message"]:
        raise RuntimeError(f"a run ended early: {progress}")
    return progress["status"] == "executing" or progress["queue_position"] is not None


def busy_percent(process_id: int, window_s: float) -> float:
    began_s, before_s = time.monotonic(), _cpu_s(process_id)
    time.sleep(window_s)
    return 100 * (_cpu_s(process_id) - before_s) / (time.monotonic() - began_s)


def _cpu_s(process_id: int) -> float:
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _window_ms(url: str, ids: list[str], count: int) -> list[float]:
    """Requests the progress of each run in turn over one connection; returns the durations in ms."""
    taken_ms = []
    with requests.Session() as session:
        for run_id in itertools.islice(itertools.cycle(ids), count):
            began_s = time.perf_counter()
            session.get(f"{url}/{run_id}/progress", timeout=LIMIT_S).raise_for_status()
            taken_ms.append(1000 * (time.perf_counter() - began_s))
            time.sleep(REQUEST_PAUSE_S)
    return taken_ms
