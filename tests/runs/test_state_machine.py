"""The state machine alone, and with messages recorded from real ComfyUI servers."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from comfyui_workflow.comfyui.history import Outcome, read_history
from comfyui_workflow.comfyui.messages import MessageReader, prompt_id_of, says_ended
from comfyui_workflow.runs import events
from comfyui_workflow.runs.codec import decode_run, encode_request, encode_run
from comfyui_workflow.runs.events import NodeStep
from comfyui_workflow.runs.model import (
    NOT_RESUBMITTED,
    FileType,
    NodeStatus,
    OutputFile,
    Phase,
    Placement,
    Run,
    RunRequest,
    RunStatus,
    Stay,
    is_run_id,
    new_run_id,
)
from comfyui_workflow.runs.nodes import planned_nodes
from comfyui_workflow.runs.state_machine import apply
from comfyui_workflow.runs.summary import summary_of
from comfyui_workflow.runs.target import target_of_record
from comfyui_workflow.workflows.graph import sink_ids
from comfyui_workflow.workflows.model import Workflow

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
}
RECORDED = json.loads((Path(__file__).parents[1] / "traces" / "prompts.json").read_text())
DEADLY = "99"  # one recorded graph links to a node of this id, which it has not got: it is never sent by us
PROMPTS = [
    (name, prompt)
    for name, prompts in RECORDED.items()
    for prompt in prompts
    if f'["{DEADLY}", 0]' not in json.dumps(prompt["graph"])
]


def new_run(graph: dict[str, object] = GRAPH) -> Run:
    request = RunRequest(
        target=target_of_record("ssh root@192.0.2.1"),
        workflow=Workflow(graph=graph),
        workflow_name="test",
        output_dir="/tmp/x",
        comfyui_port=18188,
        comfyui_input_dir="/i",
        comfyui_output_dir="/o",
    )
    nodes = planned_nodes(graph, sink_ids(graph))
    return Run(run_id=new_run_id(AT), request=request, queue_time=AT, last_update=AT, nodes=nodes)


def after(run: Run, *happened: events.Event) -> Run:
    for event in happened:
        run = apply(run, event, run.last_update + timedelta(seconds=1))
    return run


def output(name: str, **fields: str) -> OutputFile:
    return OutputFile(filename=name, file_type=FileType.IMAGE, **fields)


def at_address(ssh_connection: str, comfyui_port: int = 18188) -> events.InstanceChosen:
    return events.InstanceChosen(
        placement=Placement(
            instance_id="gpu",
            name="gpu",
            ssh_connection=ssh_connection,
            comfyui_port=comfyui_port,
            comfyui_input_dir="/i",
            comfyui_output_dir="/o",
            reason="free",
        )
    )


@pytest.mark.parametrize("begin", [(), (at_address("ssh root@192.0.2.1"),)], ids=["ssh string", "instance"])
def test_the_port_of_a_prompt_stays(begin: tuple[events.Event, ...]) -> None:
    """Whatever the instance says about its port later: the prompt is in the ComfyUI on the first one."""
    sent = events.PromptPrepared(prompt_id="p", boot_marker=None)
    run = after(new_run(), *begin, events.PortChosen(port=8188))
    assert run.port_of_prompt == 8188
    failed = events.RunFailed(code="comfyui_unavailable", message="gone")
    assert after(run, failed, events.RetryRequested()).port_of_prompt is None
    assert after(run, sent, failed, events.RetryRequested()).port_of_prompt == 8188
    elsewhere = at_address("ssh root@192.0.2.1 -L 1:localhost:7", comfyui_port=7)
    assert after(run, elsewhere).port_of_prompt is None
    run = after(run, sent, elsewhere)
    assert (run.comfyui_port, run.port_of_prompt) == (7, 8188)
    assert after(run, events.PromptVanished(message="gone")).port_of_prompt == 8188
    assert after(run, at_address("ssh root@192.0.2.2")).chosen_port is None
    assert after(run, events.InstanceLeft(message="dead")).port_of_prompt is None
    again = decode_run(encode_request(run.request), encode_run(run))
    assert again.port_of_prompt == 8188


def test_a_run_of_an_earlier_release_stays_at_the_port_of_its_request() -> None:
    run = after(new_run(), events.PromptPrepared(prompt_id="p", boot_marker=None))
    assert (run.chosen_port, run.port_of_prompt) == (None, 18188)


def test_a_run_from_start_to_end() -> None:
    run = after(new_run(), events.PromptPrepared(prompt_id="p", boot_marker=None))
    assert (run.status, run.phase, run.submissions, run.is_accepted) == ("queued", Phase.SUBMITTING, 1, False)
    run = after(run, events.PromptAccepted(prompt_id="p"), events.QueuePositionChanged(position=2))
    assert (run.status, run.queue_position, run.is_accepted) == (RunStatus.QUEUED, 2, True)
    run = after(
        run,
        events.ExecutionStarted(),
        events.NodesCached(node_ids=frozenset({"1"})),
        events.NodesAdvanced(steps={"2": NodeStep(value=45, maximum=100)}),
    )
    assert (run.status, run.queue_position, run.progress_percent) == (RunStatus.EXECUTING, None, 33.3)
    assert run.node_type(run.current_node_id) == "ImageInvert"
    assert [(n.status.value, n.progress, n.message) for n in run.nodes] == [
        ("executed", 100.0, "Cached"),
        ("executing", 45.0, "Step 45/100"),
        ("pending", 0.0, None),
    ]
    run = after(run, events.PromptSucceeded(outputs=(output("a.png"),)))
    assert (run.status, run.phase, run.progress_percent) == (RunStatus.EXECUTING, Phase.DOWNLOADING, 100.0)
    fetched = output("a.png", local_path="/tmp/x/a.png")
    run = after(run, events.OutputsFetched(outputs=(fetched,)), events.RunCompleted())
    assert (run.status, run.progress_percent, run.outputs) == (RunStatus.COMPLETED, 100.0, (fetched,))
    assert run.end_time is not None
    assert run.start_time is not None


def test_a_finished_run_comes_back_unchanged_whatever_comes_late() -> None:
    for ending in (events.RunCompleted(), events.RunCancelled(), events.RunFailed(code="x", message="y")):
        run = after(new_run(), ending)
        late = (
            events.ExecutionStarted(),
            events.RunCompleted(),
            events.CancelRequested(),
            events.RunCancelled(),
        )
        assert all(apply(run, event, AT + timedelta(days=1)) is run for event in late)


def placed(name: str, price: float | None = 3.6) -> events.InstanceChosen:
    return events.InstanceChosen(
        placement=Placement(
            instance_id=name,
            name=name,
            ssh_connection=f"ssh root@{name}",
            comfyui_port=7,
            comfyui_input_dir="/in",
            comfyui_output_dir="/out",
            price_per_hour=price,
            reason="cheapest",
        )
    )


def test_a_run_that_leaves_its_instance_begins_anew_on_the_next_one() -> None:
    run = after(new_run(), placed("a"), events.GraphPrepared(graph={}))
    assert (run.ssh_connection, run.comfyui_port, run.comfyui_output_dir) == ("ssh root@a", 7, "/out")
    left = after(run, events.InstanceLeft(message="a is away"))
    assert (left.placement, left.prepared_graph, left.notices) == (None, None, ())
    assert (left.ssh_connection, left.phase) == ("ssh root@192.0.2.1", Phase.WAITING)
    run = after(run, events.PromptPrepared(prompt_id="p", boot_marker="m"), events.ExecutionStarted())
    left = after(run, events.InstanceLeft(message="a died"))
    assert (left.placement, left.prompt_id, left.times_lost_running) == (None, None, 1)
    assert (left.prepared_graph, left.notices) == ({}, ("a died",))  # what may have run keeps its seeds
    assert (left.status, left.gpu_s, left.gpu_since) == (RunStatus.QUEUED, 1.0, None)
    run = after(
        run, events.PromptSucceeded(outputs=(output("a.png"),)), events.InstanceLeft(message="a died")
    )
    assert (run.outputs, run.are_outputs_known, run.status) == ((), False, RunStatus.QUEUED)


def test_the_gpu_is_paid_for_as_long_as_comfyui_says_it_worked() -> None:
    run = after(new_run(), placed("a"), events.ExecutionStarted(), events.NodeStarted(node_id="1"))
    assert run.gpu_seconds(run.last_update + timedelta(seconds=2)) == 3.0
    told = after(run, events.ExecutionEnded(execution_s=10.0), events.PromptSucceeded(outputs=()))
    told = after(told, events.ExecutionEnded(execution_s=10.0), events.RunCompleted())
    assert (told.gpu_s, told.cost(told.last_update)) == (10.0, pytest.approx(0.01))
    assert after(run, events.ExecutionEnded(execution_s=None)).gpu_s == 2.0
    unheard = after(new_run(), events.ExecutionEnded(execution_s=5.0))
    assert (unheard.gpu_s, unheard.cost(unheard.last_update)) == (5.0, None)
    assert after(run, events.RunFailed(code="x", message="y")).gpu_s == 2.0
    away = after(run, events.AttemptFailed(message="cut"), events.AttemptFailed(message="still"))
    assert away.gpu_seconds(AT + timedelta(days=1)) == 2.0
    assert summary_of(away).gpu_seconds(AT + timedelta(days=1)) == 2.0
    assert after(away, events.PromptVanished(message="a died")).gpu_s == 2.0  # what nobody saw is not counted
    assert after(away, events.ExecutionStarted(), events.PromptVanished(message="a died")).gpu_s == 5.0
    unseen = apply(run, events.RunResumed(), AT + timedelta(days=1))
    assert after(unseen, events.CancelRequested(), events.PromptVanished(message="lost")).gpu_s == 1.0
    found = apply(unseen, events.ExecutionStarted(), unseen.last_update)
    assert apply(found, events.RunFailed(code="x", message="y"), unseen.last_update).gpu_s > 86_000


def test_a_prompt_executes_for_all_we_know_only_while_somebody_looks() -> None:
    run = after(new_run(), events.ExecutionStarted())
    assert run.executes_since == AT + timedelta(seconds=1)
    for away in (after(run, events.AttemptFailed(message="cut")), after(run, events.RunResumed())):
        assert away.executes_since is None
        assert away.gpu_seconds(AT + timedelta(days=1)) == (away.contact_lost_at - AT).total_seconds() - 1
        assert after(away, events.ExecutionStarted()).executes_since == run.executes_since
        assert after(away, events.ExecutionEnded(execution_s=None)).gpu_s == away.gpu_seconds(AT)
    assert after(run, events.RunResumed()).contact_lost_at == run.last_update
    assert after(new_run(), events.RunResumed()).contact_lost_at is None


def test_what_began_unseen_began_when_comfyui_says_unless_that_cannot_be() -> None:
    waiting = after(new_run(), *[events.PhaseEntered(phase=Phase.WAITING)] * 9)  # it is ten seconds after
    for began_s, seconds, known_s in ((2, 3.0, 2), (-60, 3.0, 0), (60, 3.0, 7), (None, 3.0, 7), (2, 1e11, 0)):
        began_at = None if began_s is None else AT + timedelta(seconds=began_s)
        ended = after(waiting, events.ExecutionEnded(execution_s=seconds, began_at=began_at))
        assert ended.start_time == AT + timedelta(seconds=known_s)
    late = after(waiting, events.ExecutionStarted(), events.ExecutionEnded(execution_s=4.0))
    assert late.start_time == AT + timedelta(seconds=7)  # it was met while it executed


def test_what_the_gpu_did_at_an_earlier_instance_stays_at_its_price() -> None:
    there = after(new_run(), placed("a", 3.6), events.ExecutionStarted(), events.NodeStarted(node_id="1"))
    left = after(there, events.PromptPrepared(prompt_id="p", boot_marker=None))
    left = after(left, events.InstanceLeft(message="a died"))
    assert left.cost(left.last_update) == pytest.approx(0.003)
    moved = after(left, events.InstanceLeft(message="and again"), placed("b", None))
    moved = after(moved, events.ExecutionEnded(execution_s=10.0), events.RunCompleted())
    assert (moved.gpu_s, moved.cost(moved.last_update)) == (13.0, pytest.approx(0.003))
    assert moved.stays == (Stay(instance_id="a", gpu_s=3.0, price_per_hour=3.6),)
    dearer = after(there, placed("a", 7.2), events.ExecutionEnded(execution_s=10.0))
    assert dearer.cost(dearer.last_update) == pytest.approx(0.01)
    same = decode_run(encode_request(moved.request), encode_run(moved))
    assert same.stays == moved.stays
    before_stays = json.loads(encode_run(moved))
    del before_stays["stays"]
    old = decode_run(encode_request(moved.request), json.dumps(before_stays).encode())
    assert (old.gpu_s, old.stays) == (13.0, ())


def test_execution_may_be_heard_of_before_the_answer_to_the_submission() -> None:
    run = after(
        new_run(),
        events.PromptPrepared(prompt_id="p", boot_marker=None),
        events.ExecutionStarted(),
        events.PromptAccepted(prompt_id="p"),
        events.QueuePositionChanged(position=0),
    )
    assert (run.status, run.phase, run.queue_position) == (RunStatus.EXECUTING, Phase.EXECUTING, None)


def test_what_is_said_of_a_run_is_what_happens_now() -> None:
    accepted = after(
        new_run(),
        events.PromptPrepared(prompt_id="p", boot_marker=None),
        events.PromptAccepted(prompt_id="p"),
    )
    trouble = events.AttemptFailed(message="connection refused; trying again")
    connecting = events.PhaseEntered(phase=Phase.CONNECTING, message="Connecting to the instance")
    queued = after(accepted, events.QueuePositionChanged(position=1), trouble)
    assert (queued.phase, queued.message) == (Phase.WAITING, trouble.message)
    queued = after(queued, connecting, events.QueuePositionChanged(position=1))
    assert (queued.phase, queued.message) == (Phase.QUEUED, "Waiting in the queue of the instance")
    running = after(accepted, events.ExecutionStarted(), trouble, connecting)
    running = after(running, events.NodesAdvanced(steps={"2": NodeStep(value=1, maximum=9)}))
    assert (running.phase, running.message) == (Phase.EXECUTING, None)


def test_a_failure_names_its_node_and_leaves_none_executing() -> None:
    steps = {"1": NodeStep(value=1, maximum=1), "2": NodeStep(value=1, maximum=2)}
    run = after(new_run(), events.NodesAdvanced(steps=steps))
    run = after(run, events.RunFailed(code="prompt_failed", message="Out of memory", node_id="2"))
    assert [node.status for node in run.nodes] == [NodeStatus.PENDING, NodeStatus.FAILED, NodeStatus.PENDING]
    assert (run.error_message, run.node_type(run.failed_node_id)) == ("Out of memory", "ImageInvert")


def test_a_lost_prompt_starts_over_and_is_counted_only_if_it_ran() -> None:
    accepted = after(
        new_run(), events.PromptPrepared(prompt_id="p", boot_marker="m"), events.PromptAccepted(prompt_id="p")
    )
    queued = after(accepted, events.PromptVanished(message="restarted"))
    ran = after(accepted, events.ExecutionStarted(), events.PromptVanished(message="restarted"))
    assert (queued.times_lost_running, ran.times_lost_running) == (0, 1)
    for run in (queued, ran):
        assert (run.status, run.prompt_id, run.is_accepted) == (RunStatus.QUEUED, None, False)
        assert run.notices == ("restarted",)
        assert {node.message for node in run.nodes} == {"restarted"}


def test_a_run_whose_cached_files_are_gone_starts_over_and_keeps_what_is_here() -> None:
    cached = replace(output("a.png"), is_cached=True), replace(output("b.png"), is_cached=True)
    first = after(
        new_run(),
        events.PromptPrepared(prompt_id="p", boot_marker="m"),
        events.PromptAccepted(prompt_id="p"),
        events.PromptSucceeded(outputs=cached),
        events.OutputsFetched(outputs=(replace(cached[0], local_path="/x/a.png"),)),
        events.OutputsGone(node_ids=("3",), message="gone"),
    )
    assert (first.status, first.prompt_id, first.are_outputs_known) == (RunStatus.QUEUED, None, False)
    assert (first.saved_again, first.times_lost_running, first.notices) == (("3",), 0, ("gone",))
    assert [each.local_path for each in first.outputs] == ["/x/a.png"]
    made = replace(output("b.png"), made_before=AT)
    for listed in ((replace(cached[0], made_before=AT), made), (made,)):
        second = after(first, events.PromptSucceeded(outputs=listed))
        assert [(each.filename, each.local_path) for each in second.outputs] == [
            ("a.png", "/x/a.png"),
            ("b.png", None),
        ]
    left = after(first, events.InstanceLeft(message="it died"))
    assert (left.saved_again, left.outputs) == ((), ())


def test_a_retry_opens_a_failed_run_and_keeps_what_is_here() -> None:
    outputs = (output("a.png"), output("b.png"))
    run = after(
        new_run(),
        events.PromptSucceeded(outputs=outputs),
        events.OutputsFetched(
            outputs=(output("a.png", local_path="/x/a.png"), output("b.png", error="gone"))
        ),
        events.RunFailed(code="outputs_missing", message="one is missing"),
        events.RetryRequested(),
    )
    assert (run.status, run.error_message, run.end_time) == (RunStatus.EXECUTING, None, None)
    assert [(o.is_downloaded, o.error) for o in run.outputs] == [(True, None), (False, None)]
    assert run.are_outputs_known


def test_a_retry_submits_a_prompt_again_that_costs_credits() -> None:
    run = after(
        new_run(),
        events.PartnerNodesFound(node_ids=("1",)),
        events.PromptPrepared(prompt_id="p", boot_marker="boot"),
        events.PromptAccepted(prompt_id="p"),
        events.ExecutionStarted(),
        events.RunFailed(code=NOT_RESUBMITTED, message="ComfyUI was restarted"),
    )
    again = after(run, events.RetryRequested())
    assert (again.status, again.prompt_id, again.is_accepted) == (RunStatus.QUEUED, None, False)
    assert (again.error_code, again.start_time, again.partner_nodes) == (None, None, ("1",))


def test_time_never_goes_backwards_when_the_clock_does() -> None:
    run = after(new_run(), events.ExecutionStarted())
    jumped = apply(run, events.RunCompleted(), AT - timedelta(hours=3))
    assert jumped.start_time is not None
    assert jumped.end_time is not None
    assert jumped.end_time >= jumped.start_time


def test_ids_sort_by_time_and_are_recognised() -> None:
    ids = [new_run_id(AT + timedelta(microseconds=n * 70_001)) for n in range(40)]
    assert ids == sorted(ids)
    assert all(map(is_run_id, ids))
    assert not any(map(is_run_id, ["../x", "comfyui_workflow_1_", "comfyui_workflow_1_ab/..", ids[0] + "\n"]))


@pytest.mark.parametrize(("name", "prompt"), PROMPTS, ids=[f"{n}-{p['prompt_id'][:8]}" for n, p in PROMPTS])
def test_recorded_messages_lead_where_the_recorded_history_says(name: str, prompt: dict[str, object]) -> None:
    run = new_run(prompt["graph"])
    reader = MessageReader()
    percents = [0.0]
    for message in prompt["messages"]:
        assert prompt_id_of(message) == prompt["prompt_id"]
        run = after(run, *reader.events(message))
        percents.append(run.progress_percent)
        assert len(run.nodes) == len(planned_nodes(prompt["graph"], sink_ids(prompt["graph"])))
    assert percents == sorted(percents)
    if prompt["history"] is None:
        return
    entry = read_history(prompt["prompt_id"], prompt["history"])
    if entry.outcome is Outcome.SUCCESS:
        run = after(run, events.PromptSucceeded(outputs=entry.outputs), events.RunCompleted())
        assert all(node.status is NodeStatus.EXECUTED for node in run.nodes)
    else:
        run = after(run, events.RunFailed(code="x", message="y", node_id=entry.failed_node_id))
        assert run.status is RunStatus.FAILED
    if any(message["type"] == "execution_start" for message in prompt["messages"]):
        assert any(map(says_ended, prompt["messages"])) or "restart" in name
