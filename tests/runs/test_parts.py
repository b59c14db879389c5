"""A run with parts: its record, its progress and its end follow from the events of the parts."""

from dataclasses import replace
from datetime import timedelta

import pytest

from comfyui_workflow.runs import events
from comfyui_workflow.runs.codec import decode_run, encode_request, encode_run
from comfyui_workflow.runs.model import OutputFile, Run, RunStatus
from comfyui_workflow.runs.parts import (
    CollectOrder,
    Partial,
    PartOrder,
    PartsOrder,
    PartState,
    missing_sentence,
    with_part,
)
from comfyui_workflow.runs.summary import summary_of
from tests.runs.test_state_machine import AT, GRAPH, after, new_run, output

ORDER = PartsOrder(
    count=2,
    partial=Partial.KEEP,
    among=("a", "b"),
    collects=CollectOrder(master="a", participants=("a", "b"), directory="/data/parts"),
)


def part(
    number: int, status: RunStatus = RunStatus.QUEUED, *, run_id: str = "", **fields: object
) -> PartState:
    return PartState(run_id=run_id or f"p{number}", number=number, status=status, **fields)  # type: ignore[arg-type]


def with_parts(*parts: PartState) -> Run:
    run = new_run()
    return replace(run, request=replace(run.request, parts=ORDER), parts=parts)


def changed(number: int, status: RunStatus, **fields: object) -> events.PartChanged:
    return events.PartChanged(part=part(number, status, **fields))  # type: ignore[arg-type]


def test_the_record_of_a_run_and_of_a_part_is_read_as_it_was_written() -> None:
    parent = with_parts(part(0, instance="gpu", cost=0.5, gpu_s=3.0), part(1))
    order = PartOrder(parent_id=parent.run_id, number=1, among=("a",), first="a", without=("b",))
    child = replace(new_run(), request=replace(new_run().request, part=order, seed_step=1, seed_series="x"))
    for run in (parent, child):
        assert decode_run(encode_request(run.request), encode_run(run)) == run


def test_a_run_executes_as_soon_as_one_part_does() -> None:
    run = with_parts(part(0), part(1))
    assert run.waits_for_parts
    begun = after(run, changed(1, RunStatus.EXECUTING))
    assert (begun.status, begun.start_time) == (RunStatus.EXECUTING, AT + timedelta(seconds=1))
    assert begun.gpu_since is None


def test_costs_of_ended_and_of_replaced_parts_are_those_of_the_run_but_billed_once() -> None:
    run = after(
        with_parts(part(0), part(1)),
        changed(0, RunStatus.FAILED, gpu_s=10.0, cost=1.0),
        events.PartAdded(part=part(0, run_id="p0 again")),
        changed(0, RunStatus.COMPLETED, run_id="p0 again", gpu_s=20.0, cost=2.0),
        changed(1, RunStatus.COMPLETED, gpu_s=30.0),
    )
    assert [each.run_id for each in run.current_parts] == ["p0 again", "p1"]
    summary = summary_of(run)
    assert (run.gpu_seconds(AT), run.cost(AT)) == (60.0, 3.0)
    assert (summary.gpu_seconds(AT), summary.cost(AT), summary.part_count) == (60.0, 3.0, 2)
    assert summary.all_stays(AT) == ()


def test_the_outputs_of_the_parts_complete_the_run() -> None:
    outputs = (output("a.png", local_path="/o/a.png"), output("b.png", local_path="/o/b.png"))
    done = after(with_parts(part(0), part(1)), events.PartsCompleted(outputs=outputs), events.RunCompleted())
    assert (done.status, done.outputs, done.progress_percent) == (RunStatus.COMPLETED, outputs, 100.0)
    assert after(done, events.PartsCompleted(outputs=())) is done


def test_a_gathered_run_has_its_graph_and_keeps_the_outputs_of_parts() -> None:
    own = replace(output("own.png", local_path="/o/own.png"), part=0)
    gathered = events.PartsGathered(graph=GRAPH, files=("/data/0.png",), outputs=(own,))
    run = after(with_parts(part(0)), gathered)
    assert not run.waits_for_parts
    assert (run.input_files, run.prepared_graph) == (("/data/0.png",), GRAPH)
    made: tuple[OutputFile, ...] = (output("all.png"),)
    assert after(run, events.PromptSucceeded(outputs=made)).outputs == (own, *made)
    left = after(run, events.InstanceLeft(message="busy"))
    assert (left.prepared_graph, left.outputs) == (GRAPH, (own,))


@pytest.mark.parametrize(
    ("policy", "status"),
    [(Partial.MOVE, RunStatus.QUEUED), (Partial.KEEP, RunStatus.FAILED), (Partial.FAIL, RunStatus.FAILED)],
)
def test_a_part_leaves_its_instance_with_a_prompt_only_if_it_may_move(
    policy: Partial, status: RunStatus
) -> None:
    order = PartOrder(parent_id="x", number=0, partial=policy)
    run = replace(new_run(), request=replace(new_run().request, part=order))
    left = events.InstanceLeft(message="it is away")
    assert after(run, left).status is RunStatus.QUEUED
    submitted = events.PromptPrepared(prompt_id="p", boot_marker=None)
    assert after(run, submitted, left).status is status


def test_a_failed_run_waits_for_its_parts_again() -> None:
    failed = after(with_parts(part(0)), events.RunFailed(code="parts_failed", message="broken"))
    assert not failed.waits_for_parts
    assert after(failed, events.RetryRequested()).waits_for_parts


def test_missing_parts_are_named() -> None:
    missing = (
        part(1, RunStatus.FAILED, instance="gpu1", error_message="out of memory."),
        part(2, RunStatus.CANCELLED),
    )
    assert missing_sentence(missing, 3) == "Part 2 of 3 (gpu1): out of memory; Part 3 of 3: cancelled"


def test_a_part_is_replaced_by_its_run_id() -> None:
    parts = (part(0), part(1))
    assert with_part(parts, part(1, RunStatus.COMPLETED)) == (part(0), part(1, RunStatus.COMPLETED))
    assert with_part(parts, part(1, run_id="new"))[-1].run_id == "new"
