"""CPU time of the server for fifty open pages, with one running and many finished runs."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import requests

from bench.many_runs import busy_percent, slow_graph
from bench.saving import new_run, write_finished
from bench.table import Figure, Row, at_most, median
from bench.testbed import Testbed
from comfyui_workflow.runs.batch import Batch
from comfyui_workflow.runs.codec import encode_batch
from comfyui_workflow.runs.model import FileType, OutputFile, Run
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess

LIST_EVERY_S, INSTANCES_EVERY_S = 2.0, 10.0
BATCH_OF, ALONE = 30, 10
"""The list alternates between a batch of 30 runs and 10 single runs, so that thirty rows contain both."""
LIMIT_S = 30.0
MAX_PERCENT = 10.0
LIST = "/comfyui/workflow?grouped=true&limit=30"
INSTANCES = "/comfyui/instances"


@dataclass(frozen=True, kw_only=True)
class Size:
    """Windows are measured once for each of the table's runs."""

    finished: tuple[int, ...] = (1_000, 10_000)
    pages: int = 50
    settle_s: float = 4.0
    window_s: float = 6.0


FULL = Size()


def rows(testbed: Testbed, runs: int, size: Size = FULL) -> Iterator[Row]:
    with SandboxProcess(
        testbed.new_directory("pages sandbox")
    ) as sandbox:  # without prompts of other benchmarks
        ssh_string = testbed.sshd.ssh_string(comfyui_port=sandbox.comfyui_port)
        for finished in size.finished:
            server = ServerProcess(testbed.new_directory(f"pages {finished} server"))
            fill(server.data_dir, finished)
            with server:
                yield from _rows(server, ssh_string, runs, size, finished)


def _rows(server: ServerProcess, ssh_string: str, runs: int, size: Size, finished: int) -> Iterator[Row]:
    run_id = _start(server, ssh_string)
    time.sleep(size.settle_s)
    alone = [busy_percent(server.pid, size.window_s) for _ in range(runs)]
    for what, path in (
        ("the list", LIST),
        ("the view of current runs", "/comfyui/workflow/now"),
        ("one run", f"/comfyui/workflow/{run_id}/progress"),
    ):
        with open_pages(server.url, path, size.pages) as seen:
            time.sleep(size.settle_s)
            seen.clear()
            busy = [busy_percent(server.pid, size.window_s) for _ in range(runs)]
        yield _row(f"{size.pages} open pages of {what}, {finished:,} finished runs", busy, alone, seen)
    server.post(f"/{run_id}/cancel")
    ended = server.until_finished(run_id, LIMIT_S)
    assert ended["gpu_seconds"] > size.window_s, f"the run did not progress all the time: {ended}"


def _row(work: str, busy: list[float], alone: list[float], seen: "Seen") -> Row:
    figure = Figure(value=median(busy), unit="% of a core")
    return Row(
        work=f"{work}: CPU of the server",
        ours=replace(figure, about=f"{seen.answers} responses, {seen.not_modified} of them 304"),
        reference=f"{median(alone):.1f} % (without any page)",
        against=Figure(value=median(busy), unit="%"),
        goal=at_most(MAX_PERCENT, "%"),
        note=f"Each page polls this route every {LIST_EVERY_S:g} s and the instances every "
        f"{INSTANCES_EVERY_S:g} s, with its last ETag. One run executes meanwhile, with ten steps a second.",
    )


def fill(data_dir: Path, count: int) -> None:
    """Writes finished runs of the last days, most of them in batches."""
    (data_dir / "batches").mkdir(parents=True, mode=0o700)
    write_finished(data_dir, (_finished(data_dir, number, count) for number in range(count)))


def _finished(data_dir: Path, number: int, count: int) -> Run:
    run, at = new_run(number), datetime.now(UTC) - timedelta(minutes=count - number)
    outputs = tuple(
        OutputFile(
            filename=f"{each}.png", file_type=FileType.IMAGE, local_path=f"/tmp/{each}.png", node_id="3"
        )
        for each in range(2)
    )
    block, place = divmod(number, BATCH_OF + ALONE)
    batch_id = f"batch_{1_700_000_000 + block}_abcde" if place < BATCH_OF else None
    if batch_id is not None and place == 0:
        batch = Batch(batch_id=batch_id, name="night", created_at=at, total=min(BATCH_OF, count - number))
        (data_dir / "batches" / f"{batch_id}.json").write_bytes(encode_batch(batch))
    return replace(
        run,
        request=replace(run.request, batch_id=batch_id),
        outputs=outputs,
        queue_time=at,
        start_time=at,
        end_time=at + timedelta(seconds=30),
        last_update=at + timedelta(seconds=30),
        gpu_s=30.0,
    )


def _start(server: ServerProcess, ssh_string: str) -> str:
    """Starts a run with regular progress on a monitored instance."""
    url = f"{server.url.removesuffix('/workflow')}/instances"
    instance = {"name": "gpu", "ssh_connection": ssh_string}
    requests.post(url, json=instance, timeout=LIMIT_S).raise_for_status()
    run_id = server.execute("gpu", slow_graph(0))
    server.until_status(run_id, "executing", timeout_s=LIMIT_S)
    return run_id


@dataclass
class Seen:
    answers: int = 0
    not_modified: int = 0

    def clear(self) -> None:
        self.answers = self.not_modified = 0


@contextmanager
def open_pages(url: str, path: str, count: int) -> Iterator[Seen]:
    """Polls like browsers: each page over its own keep-alive connection."""
    address, seen, closed = urlsplit(url).netloc, Seen(), threading.Event()
    pages = [
        threading.Thread(
            target=_be_open, args=(address, path, number * LIST_EVERY_S / count, seen, closed), daemon=True
        )
        for number in range(count)
    ]
    for page in pages:
        page.start()
    try:
        yield seen
    finally:
        closed.set()
        for page in pages:
            page.join(LIMIT_S)


def _be_open(address: str, path: str, delay_s: float, seen: Seen, closed: threading.Event) -> None:
    connection = http.client.HTTPConnection(address, timeout=LIMIT_S)
    due_s = {path: time.monotonic() + delay_s, INSTANCES: time.monotonic() + delay_s}
    every_s = {path: LIST_EVERY_S, INSTANCES: INSTANCES_EVERY_S}
    known: dict[str, str] = {}
    while True:
        what = min(due_s, key=lambda each: due_s[each])
        if closed.wait(max(0.0, due_s[what] - time.monotonic())):
            break
        known[what] = _ask(connection, what, known.get(what, ""), seen)
        due_s[what] += every_s[what]
    connection.close()


def _ask(connection: http.client.HTTPConnection, path: str, etag: str, seen: Seen) -> str:
    """Returns the new ETag."""
    connection.request("GET", path, headers={"If-None-Match": etag, "Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    answer.read()
    if answer.status not in (200, 304):
        raise RuntimeError(f"GET {path}: {answer.status}")
    seen.answers += 1
    seen.not_modified += answer.status == 304
    return answer.headers.get("ETag", "")
