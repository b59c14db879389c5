"""Displays of a batch on a terminal and in a log."""

from typing import Any

import pytest
from msgspec import convert
from rich.console import Console

from comfyui_workflow.cli.batch_displays import LiveBatchDisplay, PlainBatchDisplay
from comfyui_workflow.cli.batch_follow import BatchView, RunNames, follow_batch
from comfyui_workflow.cli.batch_text import batch_table, end_sentence, failure_lines
from comfyui_workflow.client.batch_documents import (
    BatchOutputDocument,
    BatchProgressDocument,
    BatchRunDocument,
)
from comfyui_workflow.client.documents import SummaryDocument
from comfyui_workflow.client.server import WorkflowServer
from tests.cli.canned_server import CannedServer
from tests.cli.documents import RUN_ID, raw_progress

BATCH_ID = "batch_1_a"
COUNTS = {"completed": 3, "failed": 1, "executing": 1, "queued": 2}
FAILURE = {"workflow_id": RUN_ID, "error_message": "no \x1b[2Jmemory"}


def raw_batch(**fields: Any) -> dict[str, Any]:
    usual = {"batch_id": BATCH_ID, "batch_name": "[red]Lakes", "status": "executing", "total": 7}
    return {**usual, "counts": COUNTS, "queue_time": "2026-01-01T10:00:00Z", **fields}


def batch(**fields: Any) -> BatchProgressDocument:
    raw = raw_batch(**fields)
    return convert({**raw, "raw": raw}, BatchProgressDocument)


def run(workflow_id: str, **fields: Any) -> BatchRunDocument:
    raw = raw_progress(workflow_id=workflow_id, **fields)
    return convert({**raw, "raw": raw}, BatchRunDocument)


RUNS = [
    run(
        "comfyui_workflow_1_b",
        inputs={"6.text": "a\nlake", "3.steps": 4},
        status="completed",
        gpu_seconds=2.25,
    ),
    run(
        RUN_ID, inputs={"6.text": "x" * 99, "3.steps": 4}, instance="gpu", current_node="KSampler", cost=0.012
    ),
]
NAMES = RunNames(RUNS)


def drawn(view: BatchView, width: int = 100, height: int = 30) -> str:
    console = Console(width=width, height=height)
    display = LiveBatchDisplay(console, NAMES, clock=lambda: 0.0)
    display.show(view)
    with console.capture() as capture:
        console.print(display.render())
    return capture.get()


def test_a_terminal_shows_how_far_it_is_and_what_runs() -> None:
    view = BatchView(progress=batch(gpu_seconds=12.5, cost=0.125, failures=[FAILURE]), running=(RUNS[1],))
    picture = drawn(view)
    for part in (
        "[red]Lakes",
        "4/7 runs",
        "12.5 GPU seconds, cost 0.1250",
        "3 completed, 1 failed, 1 running, 2 waiting",
        "! run 2: no  [2Jmemory",
        "run 2  on gpu    0 % KSampler  6.text=xxx",
    ):
        assert part in picture
    assert "3.steps" not in picture  # it is the same in all
    assert "\x1b[2J" not in picture


def test_many_that_run_and_long_words_fit_on_a_small_terminal() -> None:
    many: tuple[SummaryDocument, ...] = (RUNS[1],) * 50
    long = [{**FAILURE, "error_message": f"{number} {'no memory ' * 50}"} for number in range(20)]
    lines = drawn(BatchView(progress=batch(failures=long), running=many), width=50, height=20).splitlines()
    assert len(lines) <= 20
    assert all(len(line) <= 50 for line in lines)


def test_trouble_and_what_is_waited_for_are_told() -> None:
    assert "2 waiting. gpu: it is connecting" in drawn(
        BatchView(progress=batch(), waiting="gpu: it is connecting")
    )
    display = LiveBatchDisplay(Console(), NAMES)
    display.show_trouble("No server answers")
    assert "No server answers" in str(display.render())


def test_a_log_gets_a_line_for_each_change() -> None:
    said: list[str] = []
    display = PlainBatchDisplay(said.append, NAMES)
    display.show(BatchView(progress=batch(), waiting="Uploading"))
    display.show(BatchView(progress=batch(gpu_seconds=1.0), waiting="Uploading"))
    display.show_trouble("away")
    display.show_trouble("still away")
    display.show(BatchView(progress=batch(counts={"failed": 7}, failures=[FAILURE, FAILURE])))
    assert said == [
        "[4/7] 3 completed, 1 failed, 1 running, 2 waiting. Uploading",
        "away",
        "! run 2: no  [2Jmemory",
        "[7/7] 7 failed",
    ]


def test_what_became_of_it() -> None:
    done = batch(end_time="2026-01-01T11:02:03Z", gpu_seconds=90.0, cost=12.345, failures=[FAILURE] * 20)
    assert end_sentence(done).endswith("2 waiting in 1:02:03; 90.0 GPU seconds, cost 12.35")
    assert end_sentence(batch()).endswith("2 waiting")
    lacking = end_sentence(batch(gpu_seconds=90.0, cost=12.345, unpriced_runs=1))
    assert lacking.endswith("cost 12.35 without 1 run of unknown price")
    many = batch(counts={"failed": 25}, failures=[FAILURE, {**FAILURE, "workflow_id": RUNS[0].workflow_id}])
    assert list(failure_lines(many, NAMES)) == ["runs 1, 2: no  [2Jmemory", "and 23 more"]
    output = {
        "filename": "a.png",
        "workflow_id": RUNS[0].workflow_id,
        "number": 0,
        "local_path": "/x/a (1).png",
    }
    outputs = [convert({**output, "raw": {}}, BatchOutputDocument)] * 3
    console = Console(width=200)
    with console.capture() as capture:
        console.print(batch_table(RUNS, outputs, NAMES))
    first, second = capture.get().splitlines()[1:]
    assert first.split()[:3] == ["1", "6.text=a", "lake"]
    assert "2.2" in first
    assert "a (1).png and 2 more" in first
    assert "running" in second
    assert "…" in second


def test_following_goes_on_when_the_server_is_back(canned: CannedServer) -> None:
    queued = raw_batch(status="queued", counts={"queued": 7})
    over = raw_batch(status="completed", counts={"completed": 7})
    first = raw_progress(message="Uploading")
    canned.will_answer(
        (200, {"progress": queued}),
        (200, {"workflows": []}),
        (200, {"progress": first}),
        (503, b""),
        (200, {"progress": raw_batch()}),
        (200, {"workflows": [first]}),
        (200, {"progress": over}),
    )
    heard: list[str] = []

    class Heard:
        def show(self, view: BatchView) -> None:
            heard.append(f"{view.status} {len(view.running)} {view.waiting}")

        def show_trouble(self, sentence: str) -> None:
            heard.append(sentence.partition(" ")[0])

    with WorkflowServer(canned.url) as client:
        done = follow_batch(client, BATCH_ID, Heard(), first_run=RUN_ID, pause=lambda _s: None)
    assert done.raw == over
    assert heard == ["queued 0 Uploading", "The", "executing 1 None", "completed 0 None"]


def test_a_run_whose_instance_is_away_says_so() -> None:
    words = f"It is away {'.' * 200}"
    away = run(RUN_ID, current_node="KSampler", phase="waiting", message=words, instance="gpu")
    picture = drawn(BatchView(progress=batch(), running=(away,)))
    assert "run 2  on gpu    0 % It is away" in picture
    assert "KSampler" not in picture


@pytest.mark.parametrize("width", [20, 60])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    view = BatchView(progress=batch(cost=1.0, gpu_seconds=1.0), running=(RUNS[1],), waiting="x" * 300)
    assert all(len(line) <= width for line in drawn(view, width=width).splitlines())
