"""Latency of the RunPod-compatible API while fifty jobs run and one instance is unreachable.

Fifty ComfyUIs behind one sshd, each with an executing job; and one instance that accepts connections but
never responds, which is the slowest kind of failure.
"""

import itertools
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import requests

from bench.fleet import Fleet
from bench.many_runs import slow_graph
from bench.table import Figure, Row, at_most, median, percentile
from bench.testbed import Testbed
from tests.server_process import ServerProcess

LIMIT_S = 180.0
MAX_MS = 100
PAUSE_S = 0.005
AWAY = "away"


@dataclass(frozen=True, kw_only=True)
class Size:
    """`requests` of each kind are measured in each of the table's runs."""

    running: int = 50
    requests: int = 200


FULL = Size()


@dataclass(frozen=True, kw_only=True)
class Client:
    session: requests.Session
    url: str

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = self.session.request(method, f"{self.url}{path}", json=body, timeout=LIMIT_S)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def order(self, endpoint: str, color: int) -> str:
        body = {"input": {"workflow": slow_graph(color)}}
        return str(self.ask("POST", f"/v2/{endpoint}/run", body)["id"])


def rows(testbed: Testbed, runs: int, size: Size = FULL) -> Iterator[Row]:
    with ExitStack() as stack:
        fleet = stack.enter_context(Fleet(testbed.new_directory("jobs fleet"), count=size.running))
        server = stack.enter_context(ServerProcess(testbed.new_directory("jobs server")))
        session = stack.enter_context(requests.Session())
        client = Client(session=session, url=server.url.removesuffix("/comfyui/workflow"))
        names = _name_instances(client, testbed, fleet.ports, stack.enter_context(silent_port()))
        job_ids = [client.order(name, number) for number, name in enumerate(names)]
        away_id = client.order(AWAY, size.running)
        _until_executing(client, job_ids)
        yield from _measured(client, [*job_ids, away_id], names, runs, size)


def _measured(client: Client, job_ids: list[str], names: list[str], runs: int, size: Size) -> Iterator[Row]:
    colors = itertools.count(size.running + 1)
    endpoints = itertools.cycle(["any", AWAY, *names])
    asked = itertools.cycle(job_ids)
    plain_ms = [_taken_ms(lambda: client.ask("GET", "/health")) for _ in range(runs * size.requests)]
    reference = f"{percentile(plain_ms, 99):.1f} ms (`GET /health` of the same server)"
    kinds: dict[str, Callable[[], object]] = {
        "`POST run`": lambda: client.order(next(endpoints), next(colors)),
        "`GET status`": lambda: client.ask("GET", f"/v2/any/status/{next(asked)}"),
        "`GET health`": lambda: client.ask("GET", f"/v2/{next(endpoints)}/health"),
    }
    for name, call in kinds.items():
        windows_ms = [[_taken_ms(call) for _ in range(size.requests)] for _ in range(runs)]
        yield _row(f"{size.running} jobs run and an instance is unreachable: {name}", windows_ms, reference)


def _row(work: str, windows_ms: list[list[float]], reference: str) -> Row:
    p99_ms = median(percentile(window_ms, 99) for window_ms in windows_ms)
    p50_ms = median(median(window_ms) for window_ms in windows_ms)
    return Row(
        work=work,
        ours=Figure(value=p99_ms, unit="ms", about=f"99th percentile; median {p50_ms:.1f}"),
        reference=reference,
        against=Figure(value=p99_ms, unit="ms"),
        goal=at_most(MAX_MS, "ms"),
        note="Requests are sent one after another. Jobs go to each instance in turn, to `any`, and to the "
        "unreachable instance, which accepts connections but never responds.",
    )


def _taken_ms(call: Callable[[], object]) -> float:
    time.sleep(PAUSE_S)
    began_s = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - began_s)


def _name_instances(client: Client, testbed: Testbed, ports: list[int], away_port: int) -> list[str]:
    """Adds the instances; returns the names of the reachable ones."""
    sshd = testbed.sshd
    ssh_strings = {f"gpu{number}": sshd.ssh_string(comfyui_port=port) for number, port in enumerate(ports)}
    away = f"ssh -p {away_port} {sshd.user}@127.0.0.1 -i {sshd.key_file}"
    for name, ssh_string in {**ssh_strings, AWAY: away}.items():
        client.ask("POST", "/comfyui/instances", {"name": name, "ssh_connection": ssh_string})
    return list(ssh_strings)


def _until_executing(client: Client, job_ids: list[str]) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    for job_id in job_ids:
        while (said := client.ask("GET", f"/v2/any/status/{job_id}"))["status"] != "IN_PROGRESS":
            if said["status"] != "IN_QUEUE" or time.monotonic() > deadline_s:
                raise RuntimeError(f"a job does not run: {said}")
            time.sleep(PAUSE_S)


@contextmanager
def silent_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        yield listening.getsockname()[1]
