"""The store with few and with many finished runs: saving an event, opening, listing; adding many runs."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bench.table import Figure, Row, at_most, median
from bench.testbed import Testbed
from comfyui_workflow.runs.codec import encode_request, encode_run
from comfyui_workflow.runs.events import PhaseEntered
from comfyui_workflow.runs.model import Phase, Run, RunRequest, RunStatus
from comfyui_workflow.runs.nodes import planned_nodes
from comfyui_workflow.runs.summary import RunFilter
from comfyui_workflow.runs.target import target_of_record
from comfyui_workflow.stores.files.runs import FileRunStore
from comfyui_workflow.stores.journal import RunJournal
from comfyui_workflow.workflows.graph import sink_ids
from comfyui_workflow.workflows.model import Workflow

FEW = 10
MANY = 10_000
EVENTS = 200
MAX_RATIO = 1.5
MAX_OPENING_MS = 2000.0
LISTED = 50
LISTINGS = 100
MAX_LISTING_MS = 50.0
MAX_ADDING_MS = 1.0
LARGE_NODES, BYTES_A_NODE = 120, 400


def rows(testbed: Testbed, runs: int, few: int = FEW, many: int = MANY) -> Iterator[Row]:
    small, large = testbed.new_directory("few"), testbed.new_directory("many")
    _fill(small, few)
    _fill(large, many)
    few_ms, many_ms = _saving_ms(small, large, runs)
    yield Row(
        work=f"saving one event with {many:,} finished runs",
        ours=Figure(value=many_ms, unit="ms"),
        reference=Figure(value=few_ms, unit="ms", about=f"with {few}"),
        against=Figure(value=many_ms / few_ms, unit="times"),
        goal=at_most(MAX_RATIO, "times"),
    )
    opening_ms = median([_opening_ms(large) for _ in range(runs)])
    small_opening_ms = median([_opening_ms(small) for _ in range(runs)])
    yield Row(
        work=f"opening the store with {many:,} finished runs",
        ours=Figure(value=opening_ms, unit="ms"),
        reference=Figure(value=small_opening_ms, unit="ms", about=f"with {few}"),
        against=Figure(value=opening_ms, unit="ms"),
        goal=at_most(MAX_OPENING_MS, "ms"),
    )
    yield _listing(large, runs, many)
    yield _adding(testbed, runs, many)
    yield _taking_up(testbed, runs, many)


def _listing(large: Path, runs: int, many: int) -> Row:
    """Lists and counts completed runs with a filter; both search all runs."""
    wanted = RunFilter(statuses=frozenset({RunStatus.COMPLETED}), name_contains="bench")
    taken_ms = []
    with _open(large) as store:
        for _ in range(runs * LISTINGS):
            began_s = time.perf_counter()
            store.summaries(LISTED, wanted=wanted)
            store.count(wanted)
            taken_ms.append(1000 * (time.perf_counter() - began_s))
    listing = Figure(value=median(taken_ms), unit="ms")
    return Row(
        work=f"listing {LISTED} of {many:,} finished runs, by status and name, and counting them",
        ours=listing,
        reference="–",
        against=listing,
        goal=at_most(MAX_LISTING_MS, "ms"),
    )


def _adding(testbed: Testbed, runs: int, many: int) -> Row:
    """Adds runs one after the other, and all at once; each run is flushed to the disk."""
    one_by_one_ms, together_ms = [], []
    for number in range(runs):
        with _open(testbed.new_directory(f"adding {number}")) as store:
            few = [new_run(each) for each in range(many, many + min(many, EVENTS))]
            began_s = time.perf_counter()
            for run in few:
                store.add(run)
            one_by_one_ms.append(1000 * (time.perf_counter() - began_s) / len(few))
            began_s = time.perf_counter()
            store.add_all([new_run(each) for each in range(many)])
            together_ms.append(1000 * (time.perf_counter() - began_s) / many)
    together = Figure(value=median(together_ms), unit="ms per run")
    return Row(
        work=f"adding {many:,} runs at once",
        ours=together,
        reference=Figure(value=median(one_by_one_ms), unit="ms per run", about="one after the other"),
        against=together,
        goal=at_most(MAX_ADDING_MS, "ms per run"),
    )


def _taking_up(testbed: Testbed, runs: int, many: int) -> Row:
    """Opens a store with waiting runs of one workflow, like a batch after a restart of the server."""
    directory = testbed.new_directory("taking up")
    inputs = {"width": 64, "height": 64, "color": 0, "text": "x" * BYTES_A_NODE}
    graph = {str(number): {"class_type": "EmptyImage", "inputs": inputs} for number in range(LARGE_NODES)}
    nodes = planned_nodes(graph, sink_ids(graph))
    with _open(directory) as store:
        waiting = [new_run(number) for number in range(many)]
        request = replace(waiting[0].request, workflow=Workflow(graph=graph))
        store.add_all([replace(run, request=request, nodes=nodes) for run in waiting])
    opening = Figure(value=median([_opening_ms(directory) for _ in range(runs)]), unit="ms")
    return Row(
        work=f"opening the store with {many:,} waiting runs of one workflow with {LARGE_NODES} nodes",
        ours=opening,
        reference="–",
        against=opening,
        goal=at_most(MAX_OPENING_MS, "ms"),
    )


def _fill(directory: Path, count: int) -> None:
    """Writes finished runs in the format of the store."""
    with _open(directory):
        pass  # creates the directories
    write_finished(directory / "data", map(new_run, range(count)))


def write_finished(data_dir: Path, runs: Iterable[Run]) -> None:
    """Writes the runs as completed, in the format of the store."""
    for run in (replace(run, status=RunStatus.COMPLETED) for run in runs):
        record = data_dir / "runs" / "finished" / run.run_id
        record.mkdir(parents=True)
        (record / "request.json").write_bytes(encode_request(run.request))
        (record / "run.jsonl").write_bytes(encode_run(run))


def _saving_ms(small: Path, large: Path, runs: int) -> tuple[float, float]:
    """Returns the medians of saving an event, for both stores in turn."""
    few_ms: list[float] = []
    many_ms: list[float] = []
    with _open(small) as few, _open(large) as many:
        few_id, many_id = _add_live_run(few), _add_live_run(many)
        for _ in range(runs):
            few_ms += _events_ms(few, few_id)
            many_ms += _events_ms(many, many_id)
    return median(few_ms), median(many_ms)


def _add_live_run(store: FileRunStore) -> str:
    run = new_run(MANY + store.count())
    store.add(run)
    return run.run_id


def _events_ms(store: FileRunStore, run_id: str) -> list[float]:
    """Saves different phases, each of which is written immediately; returns the durations in ms."""
    journal = RunJournal(store)
    taken_ms = []
    for number in range(EVENTS):
        event = PhaseEntered(phase=Phase.UPLOADING, message=str(number))
        began_s = time.perf_counter()
        journal.record(run_id, event)
        taken_ms.append(1000 * (time.perf_counter() - began_s))
    return taken_ms


def _opening_ms(directory: Path) -> float:
    began_s = time.perf_counter()
    with _open(directory):
        return 1000 * (time.perf_counter() - began_s)


@contextmanager
def _open(directory: Path) -> Iterator[FileRunStore]:
    store = FileRunStore(directory / "data", directory / "state.json")
    store.open()
    try:
        yield store
    finally:
        store.close()


def new_run(number: int) -> Run:
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "color": number}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "bench"}},
    }
    at = datetime.now(UTC)
    request = RunRequest(
        target=target_of_record("ssh -p 40738 root@198.51.100.7"),
        workflow=Workflow(graph=graph),
        workflow_name="bench.json",
        output_dir="/tmp/outputs",
        comfyui_port=8188,
        comfyui_input_dir="/workspace/ComfyUI/input",
        comfyui_output_dir="/workspace/ComfyUI/output",
    )
    return Run(
        run_id=f"comfyui_workflow_{1_700_000_000 + number}_abcde",
        request=request,
        queue_time=at,
        last_update=at,
        nodes=planned_nodes(graph, sink_ids(graph)),
    )
