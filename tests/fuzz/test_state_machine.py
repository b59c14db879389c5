"""Whatever happens to a run, in whatever order: it stays a run that makes sense, and that can be kept."""

import json
from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from comfyui_workflow.runs import events
from comfyui_workflow.runs.codec import (
    decode_run,
    decode_summary,
    encode_request,
    encode_run,
    encode_summary,
)
from comfyui_workflow.runs.document import progress_document, summary_document
from comfyui_workflow.runs.events import (
    Event,
    NodesPlanned,
    NodeStep,
    PromptVanished,
    RetryRequested,
    RunFailed,
)
from comfyui_workflow.runs.model import NodeStatus, OutputFile, Phase, Placement, Run, RunStatus
from comfyui_workflow.runs.nodes import planned_nodes
from comfyui_workflow.runs.parts import PartState
from comfyui_workflow.runs.state_machine import apply
from comfyui_workflow.runs.summary import summary_of
from comfyui_workflow.workflows.graph import sink_ids
from tests.fuzz.effort import effort
from tests.runs.test_state_machine import AT, GRAPH, new_run

node_ids = st.sampled_from(["1", "2", "3", "4", "", "x"])
messages = st.text(st.characters(codec="utf-8"), max_size=20)
steps = st.builds(
    NodeStep,
    value=st.floats(-1e15, 1e15) | st.integers(-2, 25),
    maximum=st.floats(-1e15, 1e15) | st.integers(-2, 20),
    is_finished=st.booleans(),
)
outputs = st.builds(
    OutputFile,
    filename=st.sampled_from(["a.png", "b.png", "c.txt"]),
    folder=st.sampled_from(["output", "temp", "text"]),
    node_id=node_ids,
    text=st.none() | messages,
    local_path=st.none() | st.just("/o/a.png"),
    size_bytes=st.none() | st.integers(0, 2**40),
    error=st.none() | messages,
)
many_outputs = st.lists(outputs, max_size=3).map(tuple)
PLANS = [planned_nodes(GRAPH, sink_ids(GRAPH)), planned_nodes(GRAPH, ["2"]), ()]
PLACEMENTS = [
    Placement(
        instance_id=name,
        name=name,
        ssh_connection=f"ssh root@{name}",
        comfyui_port=1,
        comfyui_input_dir="/i",
        comfyui_output_dir="/o",
        price_per_hour=price,
        reason="the only one",
    )
    for name, price in (("a", None), ("b", 0.5))
]
part_states = st.builds(
    PartState,
    run_id=st.sampled_from(["p0", "p1", "p2"]),
    number=st.integers(0, 2),
    status=st.sampled_from(RunStatus),
    gpu_s=st.floats(0, 1e6),
    cost=st.none() | st.floats(0, 1e6),
)
happened: st.SearchStrategy[Event] = st.one_of(
    st.builds(events.PartAdded, part=part_states),
    st.builds(events.PartChanged, part=part_states),
    st.builds(events.PartsCompleted, outputs=many_outputs, placement=st.none() | st.sampled_from(PLACEMENTS)),
    st.builds(events.PartsGathered, graph=st.just({}), files=st.just(("/f",)), outputs=many_outputs),
    st.builds(
        events.PhaseEntered,
        phase=st.sampled_from([p for p in Phase if p is not Phase.FINISHED]),
        message=messages,
    ),
    st.builds(events.AttemptFailed, message=messages),
    st.builds(events.RunResumed),
    st.builds(events.NoticeAdded, message=messages),
    st.builds(NodesPlanned, nodes=st.sampled_from(PLANS)),
    st.builds(events.PromptPrepared, prompt_id=messages, boot_marker=st.none() | messages),
    st.builds(events.PromptSentAgain, process=messages),
    st.builds(events.ExecutedTwice, message=messages),
    st.builds(events.PromptAccepted, prompt_id=messages),
    st.builds(events.QueuePositionChanged, position=st.integers(0, 9)),
    st.builds(events.ExecutionStarted),
    st.builds(events.NodesCached, node_ids=st.frozensets(node_ids)),
    st.builds(events.NodeStarted, node_id=node_ids, ends_others=st.booleans()),
    st.builds(
        events.NodesAdvanced, steps=st.dictionaries(node_ids, steps, max_size=4), first_look=st.booleans()
    ),
    st.builds(events.PromptSucceeded, outputs=many_outputs),
    st.builds(events.OutputsFound, outputs=many_outputs),
    st.builds(events.OutputsFetched, outputs=many_outputs),
    st.builds(PromptVanished, message=messages),
    st.builds(events.PriorityChanged, priority=st.integers(-100, 100)),
    st.builds(events.InstanceChosen, placement=st.sampled_from(PLACEMENTS)),
    st.builds(events.InstanceLeft, message=messages),
    st.builds(events.ExecutionEnded, execution_s=st.none() | st.floats(0, 1e6)),
    st.builds(events.CancelRequested),
    st.builds(RetryRequested),
    st.builds(events.RunCompleted),
    st.builds(RunFailed, code=messages, message=messages, node_id=st.none() | node_ids),
    st.builds(events.RunCancelled, message=st.none() | messages),
)
jumps = st.integers(-100_000, 100_000).map(lambda seconds: timedelta(seconds=seconds))


@effort(200)
@given(st.lists(st.tuples(happened, jumps), max_size=30))
def test_whatever_happens_the_run_makes_sense(story: list[tuple[Event, timedelta]]) -> None:
    run, at = new_run(), AT
    for event, jump in story:
        at += jump
        before, run = run, apply(run, event, at)
        check_step(before, event, run)
        check(run)


def check_step(before: Run, event: Event, after: Run) -> None:
    assert after.last_update >= before.last_update
    assert (after.run_id, after.request, after.queue_time) == (
        before.run_id,
        before.request,
        before.queue_time,
    )
    assert after.submissions >= before.submissions
    assert after.gpu_s >= before.gpu_s
    assert set(before.notices) <= set(after.notices)
    if before.is_finished and not (before.status is RunStatus.FAILED and isinstance(event, RetryRequested)):
        assert after is before or isinstance(event, events.ExecutedTwice)
        assert replace(after, notices=before.notices) == before
    if not isinstance(event, PromptVanished | events.InstanceLeft | NodesPlanned | RunFailed):
        assert after.progress_percent >= before.progress_percent
        for node, now in zip(before.nodes, after.nodes, strict=True):
            assert now.node_id == node.node_id
            assert now.progress >= node.progress
            assert node.status is not NodeStatus.EXECUTED or now.status is NodeStatus.EXECUTED


def check(run: Run) -> None:
    assert run.is_finished == (run.end_time is not None) == (run.phase is Phase.FINISHED)
    assert 0.0 <= run.progress_percent <= 100.0
    assert all(0.0 <= node.progress <= 100.0 for node in run.nodes)
    assert run.status is not RunStatus.COMPLETED or run.progress_percent == 100.0
    for node in run.nodes:
        assert node.start_time is None or run.queue_time <= node.start_time <= run.last_update
        assert (
            node.end_time is None or (node.start_time or run.queue_time) <= node.end_time <= run.last_update
        )
    assert run.queue_position is None or run.status is RunStatus.QUEUED
    assert not run.is_finished or all(node.status is not NodeStatus.EXECUTING for node in run.nodes)
    assert run.start_time is None or run.queue_time <= run.start_time <= (run.end_time or run.last_update)
    assert run.gpu_since is None or run.status is RunStatus.EXECUTING
    assert len({output.key for output in run.outputs}) == len(run.outputs)
    stored = replace(run, prepared_graph=None)  # a file of its own
    assert decode_run(encode_request(run.request), encode_run(run)) == stored
    assert not (run.waits_for_parts and (run.is_finished or run.are_parts_done))
    summary = summary_of(run)
    assert decode_summary(encode_summary(summary)) == summary
    progress, line = progress_document(run), summary_document(summary)
    for document in (progress, line):
        assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert line.pop("output_count") == len(run.outputs)
    assert {name: progress[name] for name in line} == line
    own = {"progress_percent": run.progress_percent, "completed_nodes": run.completed_nodes}
    later = run.last_update + timedelta(hours=1)
    assert own.items() <= line.items()
    assert (summary.gpu_seconds(later), summary.cost(later)) == (run.gpu_seconds(later), run.cost(later))
