"""Start and end times of nodes: only observed times are reported."""

from collections.abc import Iterable
from datetime import timedelta

import pytest

from comfyui_workflow.comfyui.messages import MessageReader
from comfyui_workflow.runs import events
from comfyui_workflow.runs.codec import decode_run, encode_request, encode_run
from comfyui_workflow.runs.document import progress_document
from comfyui_workflow.runs.events import NodesAdvanced, NodeStarted, NodeStep
from comfyui_workflow.runs.model import NodeStatus, Run
from comfyui_workflow.runs.state_machine import apply
from tests.runs.test_state_machine import AT, PROMPTS, new_run

DONE = NodeStep(value=1, maximum=1, is_finished=True)
Times = list[tuple[float | None, float | None]]


def played(happened: Iterable[tuple[float, events.Event]], run: Run | None = None) -> Run:
    """Each event, so many seconds after the beginning."""
    run = run or new_run()
    for second, event in happened:
        run = apply(run, event, AT + timedelta(seconds=second))
    return run


def times(run: Run) -> Times:
    def second(at: object) -> float | None:
        return None if at is None else (at - AT).total_seconds()  # type: ignore[operator]

    return [(second(node.start_time), second(node.end_time)) for node in run.nodes]


def working(value: int = 1) -> NodeStep:
    return NodeStep(value=value, maximum=20)


def test_a_node_begins_and_ends_when_comfyui_says_so() -> None:
    run = played(
        [
            (0.1, events.ExecutionStarted()),
            (0.2, events.NodesCached(node_ids=frozenset({"1"}))),
            (0.3, NodesAdvanced(steps={"2": working(0)}, first_look=True)),
            (0.3, NodeStarted(node_id="2")),
            (1.0, NodesAdvanced(steps={"2": working()})),
            (2.5, NodesAdvanced(steps={"2": DONE})),
            (2.6, NodesAdvanced(steps={"2": DONE, "3": working(0)})),
            (2.6, NodeStarted(node_id="3")),
        ]
    )
    assert times(run) == [(None, None), (0.3, 2.5), (2.6, None)]
    run = played([(3, events.ExecutionEnded(execution_s=None)), (4, events.PromptSucceeded(outputs=()))], run)
    assert times(run) == [(None, None), (0.3, 2.5), (2.6, 3.0)]
    told = progress_document(run)["nodes"][1]
    assert (told["start_time"], told["end_time"]) == ("2026-01-02T03:04:05.300Z", "2026-01-02T03:04:07.500Z")
    assert decode_run(encode_request(run.request), encode_run(run)) == run


def test_an_old_comfyui_ends_a_node_by_beginning_the_next() -> None:
    run = played([(n, NodeStarted(node_id=str(n), ends_others=True)) for n in (1, 2, 3)])
    assert times(run) == [(1, 2), (2, 3), (3, None)]


def test_a_node_of_several_parts_begins_once() -> None:
    assert times(played([(n, NodeStarted(node_id="1")) for n in (1, 2)]))[0] == (1, None)


def test_what_happened_while_nobody_looked_has_no_time() -> None:
    away = [(1, NodeStarted(node_id="1")), (2, events.AttemptFailed(message="cut"))]
    back = NodesAdvanced(steps={"1": DONE, "2": DONE, "3": working()}, first_look=True)
    run = played([*away, (900, back), (905, NodesAdvanced(steps={"3": DONE}))])
    assert times(run) == [(1, None), (None, None), (None, 905)]
    assert {node.status for node in run.nodes} == {NodeStatus.EXECUTED}
    ended_unseen = [(900, events.ExecutionEnded(execution_s=5.0)), (901, events.PromptSucceeded(outputs=()))]
    assert times(played([*away, *ended_unseen])) == [(1, None), (None, None), (None, None)]


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (events.RunFailed(code="prompt_failed", message="memory", node_id="2"), NodeStatus.FAILED),
        (events.RunCancelled(), NodeStatus.PENDING),
    ],
    ids=["failed", "cancelled"],
)
def test_a_node_that_is_stopped_has_worked_until_then(ending: events.Event, status: NodeStatus) -> None:
    begun = [
        (1, NodeStarted(node_id="1")),
        (2, NodesAdvanced(steps={"1": DONE})),
        (2, NodeStarted(node_id="2")),
    ]
    run = played([*begun, (7, events.ExecutionEnded(execution_s=None)), (8, ending)])
    assert times(run) == [(1, 2), (2, 7), (None, None)]
    assert run.nodes[1].status is status


def test_a_prompt_that_is_submitted_again_has_new_times() -> None:
    begun = [
        (1, NodeStarted(node_id="1")),
        (2, NodesAdvanced(steps={"1": DONE})),
        (2, NodeStarted(node_id="2")),
    ]
    lost = played([*begun, (9, events.PromptVanished(message="restarted"))])
    assert times(lost) == [(None, None)] * 3
    assert times(played([(20, NodeStarted(node_id="1"))], lost)) == [(20, None), (None, None), (None, None)]


@pytest.mark.parametrize(("name", "prompt"), PROMPTS, ids=[f"{n}-{p['prompt_id'][:8]}" for n, p in PROMPTS])
def test_of_recorded_prompts_every_node_that_ran_has_times(name: str, prompt: dict[str, object]) -> None:
    run, reader, second, started = new_run(prompt["graph"]), MessageReader(), 0.0, set[str]()
    for message in prompt["messages"]:
        second += 1
        happened = list(reader.events(message))
        started |= {event.node_id for event in happened if isinstance(event, NodeStarted)}
        run = played([(second, event) for event in happened], run)
    run = played([(second + 1, events.ExecutionEnded(execution_s=None))], run)
    for node, (began, ended) in zip(run.nodes, times(run), strict=True):
        assert (began is not None) == (node.node_id in started), name
        if node.node_id in started:
            assert began is not None
            assert ended is not None
            assert began <= ended <= second + 1
