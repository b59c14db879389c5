"""Start of the server and its lists with a hundred thousand finished runs.

    .venv/bin/python -m bench.finished_runs [RUNS] [ROUNDS]

prints medians in milliseconds. It writes records in the format of an earlier release. Half of the runs belong
to batches of two hundred; half were created with an idempotency key.
"""

import argparse
import logging
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from flask.testing import FlaskClient

from comfyui_workflow.app import create_server
from comfyui_workflow.runs.batch import Batch, new_batch_id
from comfyui_workflow.runs.codec import encode_request, encode_run
from comfyui_workflow.runs.model import (
    NodeProgress,
    OutputFile,
    Phase,
    Placement,
    Run,
    RunRequest,
    RunStatus,
    new_run_id,
)
from comfyui_workflow.runs.target import AnyInstance
from comfyui_workflow.settings import load_settings
from comfyui_workflow.stores.files.batches import FileBatchStore
from comfyui_workflow.workflows.model import Workflow

RUNS = 100_000
ROUNDS = 5
BATCH_SIZE = 200
LOOK_UPS = 1000
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
LIST = "/comfyui/workflow"
QUESTIONS = {
    "first page": f"{LIST}?limit=50",
    "status that none has": f"{LIST}?status=cancelled",
    "status that few have": f"{LIST}?status=failed",
    "name": f"{LIST}?name=night-7",
    "name that none has": f"{LIST}?name=nothing",
    "instance": f"{LIST}?instance=gpu-3",
    "grouped": f"{LIST}?grouped=true",
    "grouped, with a status": f"{LIST}?grouped=true&status=failed",
    "batches": f"{LIST}/batch",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=int, nargs="?", default=RUNS)
    parser.add_argument("rounds", type=int, nargs="?", default=ROUNDS)
    asked = parser.parse_args()
    logging.disable(logging.ERROR)
    with tempfile.TemporaryDirectory() as directory:
        data_dir = Path(directory) / "data"
        write_runs(data_dir, asked.runs)
        measure_start(data_dir)  # makes the list of summaries
        measured = [measure_start(data_dir) for _ in range(asked.rounds)]
        answers = dict[str, list[float]]()
        for each in measured:
            for name, times_ms in each.answers_ms.items():
                answers.setdefault(name, []).extend(times_ms)
        print(f"{asked.runs} finished runs, median of {asked.rounds}")
        print(f"{'start':>24}: {median(each.start_ms for each in measured):8.0f} ms")
        warm_up_ms = median(each.warm_up_ms for each in measured)
        print(f"{'batches summed up':>24}: {warm_up_ms:8.0f} ms later, in the background")
        print(f"{'idempotency key':>24}: {median(each.key_ms for each in measured):8.4f} ms to find its run")
        for name, times_ms in answers.items():
            first, again = median(times_ms[::2]), median(times_ms[1::2])
            print(f"{name:>24}: {first:8.1f} ms the first time, {again:8.1f} ms again")


@dataclass(frozen=True, kw_only=True)
class Measured:
    start_ms: float
    warm_up_ms: float
    """Duration of the background work after the start."""
    key_ms: float
    """Mean duration of a lookup by idempotency key, for existing and unknown keys."""
    answers_ms: dict[str, list[float]]
    """Durations of each query: the first time, and repeated without a shared response."""


def measure_start(data_dir: Path) -> Measured:
    settings = load_settings(data_dir=data_dir, state_file=data_dir.parent / "state.json")
    server = create_server(settings)
    began_s = time.perf_counter()
    server.start()
    start_ms = 1000 * (time.perf_counter() - began_s)
    try:
        warm_up_ms = _timed_ms(_wait_for_warm_up)
        keys = [f"{number:016x}" for number in range(LOOK_UPS)]
        key_ms = _timed_ms(lambda: list(map(server.base.store.by_idempotency_key, keys))) / LOOK_UPS
        client = server.app.test_client()
        answers_ms = {name: [_ask(client, url, n) for n in (0, 1)] for name, url in QUESTIONS.items()}
        return Measured(start_ms=start_ms, warm_up_ms=warm_up_ms, key_ms=key_ms, answers_ms=answers_ms)
    finally:
        server.stop()


def _ask(client: FlaskClient, url: str, number: int) -> float:
    """Sends the query with a unique parameter, so that the response is not shared."""
    joined = f"{url}{'&' if '?' in url else '?'}unshared={number}"
    return _timed_ms(lambda: client.get(joined))


def _wait_for_warm_up() -> None:
    for thread in threading.enumerate():
        if thread.name == "warm-up":
            thread.join()


def _timed_ms(act: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - began_s)


def write_runs(data_dir: Path, count: int) -> None:
    """Writes the records as JSON without a checksum, which every release reads."""
    finished, batches = data_dir / "runs" / "finished", data_dir / "batches"
    finished.mkdir(parents=True)
    batches.mkdir()
    batch_store = FileBatchStore(batches)
    batch_store.open()
    batch: Batch | None = None
    for number in range(count):
        at = BEGAN + timedelta(seconds=10 * number)
        if number % BATCH_SIZE == 0:
            is_batch = number // BATCH_SIZE % 2 == 0
            batch = _batch(at, number) if is_batch else None
            if batch is not None:
                batch_store.add(batch)
        run = finished_run(number, at, batch)
        place = finished / run.run_id
        place.mkdir()
        (place / "request.json").write_bytes(encode_request(run.request))
        (place / "run.json").write_bytes(encode_run(run))


def _batch(at: datetime, number: int) -> Batch:
    return Batch(batch_id=new_batch_id(at), name=f"night-{number}", created_at=at, total=BATCH_SIZE)


def finished_run(number: int, at: datetime, batch: Batch | None) -> Run:
    instance = f"gpu-{number % 8}"
    request = RunRequest(
        target=AnyInstance(),
        workflow=Workflow(graph={"1": {"class_type": "SaveImage", "inputs": {}}}),
        workflow_name=f"night-{number % 50}",
        output_dir="/tmp/outputs",
        comfyui_port=18188,
        comfyui_input_dir="/in",
        comfyui_output_dir="/out",
        batch_id=None if batch is None else batch.batch_id,
    )
    run = Run(
        run_id=new_run_id(at, f"{number:016x}" if number % 2 else None),
        request=request,
        queue_time=at,
        last_update=at + timedelta(seconds=9),
        status=RunStatus.FAILED if number % 1000 == 0 else RunStatus.COMPLETED,
        phase=Phase.FINISHED,
        placement=Placement(
            instance_id=instance,
            name=instance,
            ssh_connection=f"ssh root@{instance}.example",
            comfyui_port=18188,
            comfyui_input_dir="/in",
            comfyui_output_dir="/out",
            price_per_hour=0.5,
            reason="free",
        ),
        nodes=(NodeProgress(node_id="1", node_type="SaveImage"),),
        outputs=(OutputFile(filename=f"{number}.png", local_path=f"/tmp/outputs/{number}.png"),),
        graph_signature=f"{number % 50:016x}",
        prompt_id="0b6f1f4e-3a3c-4a5e-9a0e-2f6f0c1d2e3f",
        submissions=1,
        start_time=at,
        end_time=at + timedelta(seconds=9),
        gpu_s=8.0,
    )
    return replace(run, error_message="It failed", error_code="prompt_failed") if number % 1000 == 0 else run


if __name__ == "__main__":
    main()
