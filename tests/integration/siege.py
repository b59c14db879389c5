"""Many hostile instances at once, beside a healthy one, on one server.

python -m tests.integration.siege       measures it: memory, and how long `GET progress` takes
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

from tests import hostile
from tests.hostile import Attack, HostileComfyUI
from tests.integration.graphs import painted
from tests.sandbox_process import SandboxProcess
from tests.server_process import FINISHED, Json, ServerProcess
from tests.sshd import Sshd

DRIP_LIMIT_S = 10.0
ANY_LIMIT = "ComfyUI on the instance "


def dense_message(write: hostile.Write) -> None:
    """Within the bytes of a message, and half a gigabyte of objects."""
    hostile.message_of(b'{"type":"x","data":[' + b"[]," * 9_000_000 + b"[]]}")(write)


def dense_answer(write: hostile.Write) -> None:
    """Within the bytes of an answer, and more than a gigabyte of objects."""
    block = b"[]," * 80_000
    write(hostile.head("Connection: close") + b'{"a":[')
    for _ in range(250):
        write(block)
    write(b"[]]}")


def values_within_limits(write: hostile.Write) -> None:
    """All that is allowed of `/object_info`."""
    write(hostile.head("Connection: close") + b'{"a":[')
    for _ in range(49):
        write(b"[]," * 10_000)
    write(b"[]]}")


SIEGE: Mapping[str, tuple[dict[str, Attack], str]] = {
    "bomb": ({"/history": hostile.bomb(6_000_000_000)}, "compresses its answer to GET /history"),
    "flood": ({"/history": hostile.flood(500_000_000)}, ANY_LIMIT),
    "announced": ({"/queue": hostile.flood(500_000_000, is_announced=True)}, "64 MB in answer to GET /queue"),
    "chunks": ({"/object_info": hostile.chunks(1_000_000_000)}, ANY_LIMIT),
    "dense": ({"/object_info": dense_answer}, ANY_LIMIT),
    "probe": ({"GET /prompt": hostile.flood(2_000_000_000)}, ANY_LIMIT),
    "frame": ({"/ws": hostile.huge_frame(3_000_000_000)}, "websocket message of more than 32 MB"),
    "pieces": ({"/ws": hostile.pieces_for_ever()}, "websocket message"),
    "dense-message": ({"/ws": dense_message}, "websocket message"),
    "drip": ({"/history": hostile.drip()}, "does not finish its answer to GET /history"),
    "drip-of-a-head": ({"GET /prompt": hostile.drip_head()}, "does not finish its answer to GET"),
    "continue": ({"/prompt": hostile.continue_for_ever}, "does not finish its answer to GET"),
    "chatter": ({"/ws": hostile.many_messages}, ""),
    "objects": ({"/object_info": values_within_limits}, ""),
}
"""By name: the attack, and what the run that meets it says in the end; nothing where no limit is broken.
Which of two limits a flood meets first depends on how fast it comes."""


@dataclass
class Measured:
    ended: dict[str, Json] = field(default_factory=dict)
    healthy: list[Json] = field(default_factory=list)
    troubles: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    """By instance: reachability and trouble, whenever it had one. A trouble is forgotten after a minute, and
    on a busy machine the first one may be over before the last one is known."""
    progress_s: list[float] = field(default_factory=list)
    first_mb: float = 0.0
    peak_mb: float = 0.0
    log: str = ""


def besiege(
    directory: Path, *, healthy_runs: int, only: Sequence[str] = (), timeout_s: float = 120
) -> Measured:
    """A run on each hostile instance, and `healthy_runs` one after the other on a healthy one meanwhile.
    `only` some of the attacks, by name."""
    measured = Measured()
    with _battlefield(directory, only) as (server, sandbox, hosts):
        for name, ssh_string in hosts.items():
            body = {"name": name, "ssh_connection": ssh_string}
            requests.post(_instances(server), json=body, timeout=30).raise_for_status()
        measured.first_mb = _peak_mb(server.pid)
        with _watching(server, measured, hosts):
            runs = {name: server.execute(name, painted(1)) for name in hosts}
            for number in range(healthy_runs):
                run = server.execute(sandbox.ssh_string, painted(number, prefix="healthy"))
                measured.healthy.append(server.until_finished(run, timeout_s))
                _look(server, measured)
            deadline = time.monotonic() + timeout_s
            while not (_are_finished(server, runs) and _are_seen(measured, runs)):
                assert time.monotonic() < deadline, _story(server, runs, measured)
                time.sleep(0.2)
                _look(server, measured)
        measured.ended = {name: server.progress(run) for name, run in runs.items()}
        measured.peak_mb = _peak_mb(server.pid)
        measured.log = server.log()
    return measured


def _are_finished(server: ServerProcess, runs: Mapping[str, str]) -> bool:
    return all(server.progress(run)["status"] in FINISHED for run in runs.values())


def _look(server: ServerProcess, measured: Measured) -> None:
    found = requests.get(_instances(server), timeout=30).json()["instances"]
    for name, state in ((each["name"], each["state"]) for each in found):
        if state["trouble"]:
            measured.troubles.setdefault(name, set()).add((state["reachability"], state["trouble"]))


def _are_seen(measured: Measured, names: Iterable[str]) -> bool:
    """Whether it is known of each that breaks a limit: it is looked at every two seconds."""
    return all(name in measured.troubles for name in names if SIEGE[name][1])


def _story(server: ServerProcess, runs: Mapping[str, str], measured: Measured) -> str:
    unfinished = [server.progress(run) for run in runs.values()]
    unfinished = [progress for progress in unfinished if progress["status"] not in FINISHED]
    return f"{unfinished}\n{measured.troubles}\n{server.log()[-5000:]}"


def _instances(server: ServerProcess) -> str:
    return server.url.removesuffix("/workflow") + "/instances"


@contextmanager
def _battlefield(
    directory: Path, only: Sequence[str]
) -> Iterator[tuple[ServerProcess, SandboxProcess, dict[str, str]]]:
    with ExitStack() as stack:
        sshd = stack.enter_context(Sshd(directory / "sshd", max_startups="100"))
        sandbox = stack.enter_context(SandboxProcess(directory / "sandbox"))
        hosts = {
            name: sshd.ssh_string(
                comfyui_port=stack.enter_context(
                    HostileComfyUI(attacks, ends_prompts="/ws" not in attacks or not words)
                ).port
            )
            for name, (attacks, words) in SIEGE.items()
            if not only or name in only
        }
        server = ServerProcess(directory / "server", answer_timeout_s=DRIP_LIMIT_S)
        yield stack.enter_context(server), sandbox, hosts


@contextmanager
def _watching(server: ServerProcess, measured: Measured, hosts: Mapping[str, str]) -> Iterator[None]:
    """Asks for the progress of a run, again and again, from a process of its own."""
    run = server.execute(next(iter(hosts)), painted(7))
    url = f"{server.url}/{run}/progress"
    command = [sys.executable, "-c", _PROBE, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as probe:
        try:
            yield
        finally:
            said, _ = probe.communicate(timeout=60)
            measured.progress_s = json.loads(said)


_PROBE = """
import json, select, sys, time, requests
session, took = requests.Session(), []
while not select.select([sys.stdin], [], [], 0.02)[0]:
    began = time.perf_counter()
    session.get(sys.argv[1], timeout=60).raise_for_status()
    took.append(time.perf_counter() - began)
print(json.dumps(took))
"""


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def main(show: Callable[[str], object] = sys.stdout.write) -> None:
    with tempfile.TemporaryDirectory(prefix="siege-") as directory:
        measured = besiege(Path(directory), healthy_runs=20, only=sys.argv[1:])
    centiles = statistics.quantiles(measured.progress_s, n=100)
    for name, run in measured.ended.items():
        show(f"{name}: {run['status']}: {run['error_message']}\n")
    for name, troubles in measured.troubles.items():
        show(f"{name}: {sorted(troubles)}\n")
    show(f"healthy: {[run['status'] for run in measured.healthy]}\n")
    show(f"memory at first {measured.first_mb:.0f} MB\n")
    show(f"peak memory {measured.peak_mb:.0f} MB; GET progress: {len(measured.progress_s)} times, ")
    show(f"p50 {1000 * centiles[49]:.0f} ms, p99 {1000 * centiles[98]:.0f} ms, ")
    show(f"longest {1000 * max(measured.progress_s):.0f} ms\n")


if __name__ == "__main__":
    main()
