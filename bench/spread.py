"""One workflow in parts on one to four instances: the time from the order to the end of the run, against the
time that the slowest part executed."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import requests

from bench.table import Figure, Row, at_most
from bench.testbed import Testbed
from tests.integration.graphs import slow
from tests.sandbox_process import SandboxProcess
from tests.server_process import FINISHED, ServerProcess

MACHINES = 4
STEPS, STEP_S = 40, 0.1
GOAL = 1.15
LIMIT_S = 120
NOTE = (
    "From `POST execute` with `spread` until the run is completed with the pictures of all parts. Each part "
    "executes on an instance of its own. The reference is the longest execution of a part, as its ComfyUI "
    "reports it."
)


def rows(
    testbed: Testbed, repetitions: int, *, machines: int = MACHINES, steps: int = STEPS
) -> Iterator[Row]:
    with ExitStack() as stack:
        directory = testbed.new_directory("parts")
        server = stack.enter_context(ServerProcess(directory / "server", connection_idle_s=600))
        names = [_instance(stack, server, directory, f"gpu{number}") for number in range(machines)]
        for name in names:
            _run(server, [name], 1)  # connects
        for count in range(1, machines + 1):
            measured = [_run(server, names[:count], steps) for _ in range(repetitions)]
            yield _row(count, median(each[0] for each in measured), median(each[1] for each in measured))


def _row(count: int, took_s: float, executed_s: float) -> Row:
    instances = "1 instance" if count == 1 else f"{count} instances"
    return Row(
        work=f"a workflow in {count} part{'s' if count > 1 else ''} on {instances}",
        ours=Figure(value=took_s, unit="s"),
        reference=Figure(value=executed_s, unit="s", about="the slowest part alone"),
        against=Figure(value=took_s / executed_s, unit="times as long"),
        goal=at_most(GOAL, "times as long"),
        note=NOTE,
    )


def _instance(stack: ExitStack, server: ServerProcess, directory: Path, name: str) -> str:
    sandbox = stack.enter_context(SandboxProcess(directory / name))
    fields = {
        "name": name,
        "ssh_connection": sandbox.ssh_string,
        "comfyui_input_dir": str(sandbox.input_dir),
        "comfyui_output_dir": str(sandbox.output_dir),
    }
    url = server.url.removesuffix("/workflow") + "/instances"
    requests.post(url, json=fields, timeout=10).raise_for_status()
    requests.post(f"{url}/{name}/connect", timeout=10).raise_for_status()
    return name


def _run(server: ServerProcess, names: list[str], steps: int) -> tuple[float, float]:
    """Returns the seconds of the whole run, and those of the part that executed longest."""
    graph = slow(time.monotonic_ns() % 0xFFFFFF, steps=steps, seconds_per_step=STEP_S)
    several = {"spread": len(names), "spread_over": names} if len(names) > 1 else {}
    began_s = time.monotonic()
    run_id = server.execute("any" if several else names[0], graph, **several)
    done = _until_finished(server, run_id)
    took_s = time.monotonic() - began_s
    parts: list[dict[str, Any]] = done["children"] or [done]
    return took_s, max(float(part["gpu_seconds"]) for part in parts)


def _until_finished(server: ServerProcess, run_id: str) -> dict[str, Any]:
    deadline_s = time.monotonic() + LIMIT_S
    while (done := server.progress(run_id))["status"] not in FINISHED:
        assert time.monotonic() < deadline_s, done
        time.sleep(0.005)
    assert done["status"] == "completed", done
    return done
