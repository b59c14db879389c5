"""CPU time of the imports of a command, and start time of the server.

CPU time instead of elapsed time: it is what a command takes from a machine that renders, and it does not
depend on other load.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.open_pages import fill
from bench.table import Figure, Row, at_most, median
from bench.testbed import Testbed
from tests.server_process import ServerProcess

MAX_MS = 150
REPETITIONS = 9
"""For each of the table's runs; one repetition takes a tenth of a second."""
LISTED = 1_000


def rows(testbed: Testbed, runs: int, repetitions: int = REPETITIONS, listed: int = LISTED) -> Iterator[Row]:
    server = ServerProcess(testbed.new_directory("quick commands"))
    fill(server.data_dir, listed)
    with server:
        url = server.url.removesuffix("/comfyui/workflow")
        count = runs * repetitions
        bare_ms = _cpu_ms(["-c", "pass"], count)
        help_ms = _cpu_ms(["-m", "comfyui_workflow", "--help"], count)
        yield _row("CPU of `comfyui-workflow --help`", help_ms, bare_ms)
        list_ms = _cpu_ms(["-m", "comfyui_workflow", "list", "--server", url], count)
        yield _row(f"CPU of `comfyui-workflow list`, 20 of {listed:,} runs", list_ms, bare_ms)
    start_ms = median([_start_ms(testbed.new_directory("server start")) for _ in range(runs)])
    figure = Figure(value=start_ms, unit="ms")
    yield Row(work="start of the server until `Serving on`", ours=figure, reference="–", against=figure)


def _row(work: str, taken_ms: float, bare_ms: float) -> Row:
    return Row(
        work=work,
        ours=Figure(value=taken_ms, unit="ms"),
        reference=f"{bare_ms:.1f} ms (a bare interpreter)",
        against=Figure(value=taken_ms - bare_ms, unit="ms more"),
        goal=at_most(MAX_MS, "ms more"),
        note="User and system time of the process, with compiled modules in the file cache.",
    )


def _cpu_ms(arguments: list[str], count: int) -> float:
    """Returns the median. The first process is not counted: it may compile modules."""
    _once_ms(arguments)
    return median([_once_ms(arguments) for _ in range(count)])


def _once_ms(arguments: list[str]) -> float:
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, arguments)
    return 1000 * (usage.ru_utime + usage.ru_stime)


def _start_ms(directory: Path) -> float:
    """Starts the server like a user, in a new interpreter with an empty data directory; returns the time in
    ms."""
    began_s = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "comfyui_workflow", "serve", "--port", "0"],
        env=_environment(directory),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        taken_ms = 1000 * (time.perf_counter() - began_s)
        server.terminate()
    if not line.startswith("Serving on "):
        raise RuntimeError(f"The server does not start: {line!r}")
    return taken_ms


def _environment(directory: Path) -> Mapping[str, str]:
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("COMFYUI_WORKFLOW_")
    }
    return inherited | {
        "COMFYUI_WORKFLOW_DATA_DIR": str(directory / "data"),
        "COMFYUI_WORKFLOW_STATE_FILE": str(directory / "state.json"),
    }
