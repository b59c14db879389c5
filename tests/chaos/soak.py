"""Leak test: many small runs on one server with random faults. Threads and descriptors at the end must equal
those at the start, and memory must not grow with the number of runs."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression

import requests

from tests.integration.graphs import painted
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess
from tests.sshd import Sshd

AT_ONCE = 4
WORKFLOWS = 16
IDLE_S = 2.0
LATE_COPIES_S = 5.0
"""While late copies of a prompt are possible, its connection stays open."""
RUNS_PER_FAULT = (1, 7)
"""By the number of runs and not by the clock: too many faults a second would keep every run from ending."""
DELAY_S = 0.2
"""Maximum delay of a fault after the end of a run, so that it strikes at any step of the next one."""
RUNS_PER_STAGE = 500
SETTLED_WITHIN_S = 30.0
MAX_GROWTH_KB_PER_RUN = 1.0
"""Measured after the first stage, in which caches and the allocator reach their size."""


@dataclass(frozen=True, kw_only=True)
class Holdings:
    """Resources of the server process on this machine and on the instance."""

    runs: int
    threads: int
    descriptors: int
    memory_kb: int
    sshd_processes: int

    def __str__(self) -> str:
        return (
            f"| {self.runs} | {self.threads} | {self.descriptors} | {self.memory_kb / 1024:.1f} "
            f"| {self.sshd_processes} |"
        )


def soak(directory: Path, runs: int) -> int:
    """Prints the figures. Returns 1 if resources leaked or a run did not complete, otherwise 0."""
    with (
        SandboxProcess(directory / "sandbox") as sandbox,
        Sshd(directory / "sshd") as sshd,
        ServerProcess(directory / "server", connection_idle_s=IDLE_S, late_copies_s=LATE_COPIES_S) as server,
    ):
        soaking = Soaking(sandbox, sshd, server)
        soaking.note_descriptors()
        soaking.run(AT_ONCE)
        stages = [soaking.holdings()]
        while (left := runs + AT_ONCE - stages[-1].runs) > 0:
            soaking.run_amid_faults(min(RUNS_PER_STAGE, left))
            stages.append(soaking.holdings())
            print(stages[-1], flush=True)
        _print(stages, soaking)
        if soaking.has_failed:
            print(server.log()[-5000:])
    return 1 if soaking.has_failed or _has_leaked(stages) else 0


class Soaking:
    def __init__(self, sandbox: SandboxProcess, sshd: Sshd, server: ServerProcess) -> None:
        self._sandbox, self._sshd, self._server = sandbox, sshd, server
        self.endings: Counter[str] = Counter()
        self.struck: Counter[str] = Counter()
        self._number = 0
        self._ended_runs = threading.Semaphore(0)
        self._least_descriptors = 0

    @property
    def has_failed(self) -> bool:
        return set(self.endings) != {"completed"}

    def note_descriptors(self) -> None:
        """Stores the number of descriptors before the first run."""
        self._least_descriptors = self._descriptors()

    def run(self, count: int) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self._run_one, range(self._number, self._number + count)))
        self._number += count

    def run_amid_faults(self, count: int) -> None:
        over = threading.Event()
        striking = threading.Thread(target=self._strike_until, args=(over,))
        striking.start()
        try:
            self.run(count)
        finally:
            over.set()
            striking.join()

    def holdings(self) -> Holdings:
        """Measures the resources after idle connections are closed."""
        process = Path(f"/proc/{self._server.pid}")
        self._wait_until_idle()
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        return Holdings(
            runs=self._number,
            threads=len(list((process / "task").iterdir())),
            descriptors=self._descriptors(),
            memory_kb=int(status["VmRSS"].split()[0]),
            sshd_processes=self._sshd.connection_count(),
        )

    def _wait_until_idle(self) -> None:
        """Waits until idle connections are closed, up to a limit; the figures show what stays open."""
        until = time.monotonic() + SETTLED_WITHIN_S
        while self._sshd.connection_count() or self._descriptors() > self._least_descriptors:
            if time.monotonic() > until:
                return
            time.sleep(0.1)

    def _descriptors(self) -> int:
        return len(list(Path(f"/proc/{self._server.pid}/fd").iterdir()))

    def _run_one(self, number: int) -> None:
        # as in a long night: few workflows, each run with other texts
        graph = painted(number % WORKFLOWS, batch=2, size=64, prefix=f"soak{number}")
        run = self._server.execute(self._sshd.ssh_string(comfyui_port=self._sandbox.comfyui_port), graph)
        done = self._server.until_finished(run, 120)
        self.endings[done["status"]] += 1
        self._ended_runs.release()
        if done["status"] != "completed":
            print(f"{run} ended {done['status']}: {done['error_message']}")

    def _strike_until(self, over: threading.Event) -> None:
        while self._await_ended_runs(random.randint(*RUNS_PER_FAULT), over):
            over.wait(random.uniform(0, DELAY_S))
            name, strike = random.choice(list(self._faults().items()))
            with suppress(requests.ConnectionError):  # a restarted ComfyUI accepts no fault until it is back
                strike()
                self.struck[name] += 1

    def _await_ended_runs(self, count: int, over: threading.Event) -> bool:
        """Returns False if the stage is over before."""
        while count > 0:
            if over.is_set():
                return False
            count -= self._ended_runs.acquire(timeout=0.5)
        return True

    def _faults(self) -> dict[str, Callable[[], None]]:
        def comfyui(**faults: object) -> Callable[[], None]:
            return lambda: self._sandbox.faults(**faults)

        return {
            "connection cut": self._sshd.kill_connections,
            "sshd restarted": self._restart_sshd,
            "websockets closed": comfyui(close_websockets=True),
            "websockets deaf": comfyui(deaf_websockets=True),
            "websockets heard": comfyui(deaf_websockets=False),
            "POST unanswered": comfyui(answers=[{"path": "/prompt", "method": "POST", "mode": "drop"}]),
            "history 500": comfyui(answers=[{"path": "/history", "mode": "500", "times": 3}]),
            "queue half a JSON": comfyui(answers=[{"path": "/queue", "mode": "half_json", "times": 3}]),
            "ComfyUI restarted": comfyui(restart={"down_s": 0.2}),
        }

    def _restart_sshd(self) -> None:
        self._sshd.stop()
        self._sshd.start()


def _print(stages: list[Holdings], soaking: Soaking) -> None:
    print("| runs | threads | file descriptors | memory (MB) | sshd processes |")
    print("| --- | --- | --- | --- | --- |")
    print("\n".join(map(str, stages)))
    print(f"\nMemory grows by {growth_kb_per_run(stages):.2f} KB a run after the first stage.")
    print(f"Runs: {dict(soaking.endings)}. Faults: {dict(soaking.struck)}.")


def growth_kb_per_run(stages: list[Holdings]) -> float:
    """Returns the slope of memory over runs after the first stage; 0 for less than two such stages."""
    later = stages[1:]
    if len(later) < 2:
        return 0.0
    return linear_regression([each.runs for each in later], [each.memory_kb for each in later]).slope


def _has_leaked(stages: list[Holdings]) -> bool:
    before, after = stages[0], stages[-1]
    return (
        after.threads > before.threads
        or after.descriptors > before.descriptors
        or growth_kb_per_run(stages) > MAX_GROWTH_KB_PER_RUN
    )
