"""Parts of one run go to different instances."""

from dataclasses import replace
from datetime import timedelta

import pytest

from comfyui_workflow.instances.state import InstanceState, Reachability
from comfyui_workflow.runs.model import Run, RunStatus
from comfyui_workflow.runs.parts import PartOrder
from comfyui_workflow.scheduling.capacity import LOOK_OF_PARTS_S, Capacity
from comfyui_workflow.scheduling.pending_queue import AnyWithTag
from comfyui_workflow.scheduling.state import SchedulerState
from tests.scheduling.making import AWAY, READY, FakeMonitors, instance, request
from tests.scheduling.test_state import AT, decided, new_run

UNKNOWN = InstanceState()


def connecting(since_s: float) -> InstanceState:
    since = AT - timedelta(seconds=since_s)
    return InstanceState(reachability=Reachability.CONNECTING, connecting_since=since)


def state_of(**states: InstanceState) -> SchedulerState:
    state = SchedulerState(
        Capacity(FakeMonitors(dict(states)), most_prompts=2, most_staging=1), timedelta(days=1)
    )
    state.update_instances([instance(name) for name in states], number=1)
    return state


def part(number: int, *, parent_id: str = "p", **fields: object) -> Run:
    order = PartOrder(parent_id=parent_id, number=number, **fields)  # type: ignore[arg-type]
    return new_run(replace(request(), part=order))


def places(state: SchedulerState, *parts: Run) -> list[str | None]:
    """Puts the parts. Returns the instance of each, None for those that wait."""
    for each in parts:
        state.put(each, AT)
    decided(state)
    return [place(state, each) for each in parts]


def place(state: SchedulerState, run: Run) -> str | None:
    try:
        return state.active(run.run_id).instance_id
    except KeyError:
        return None


def test_each_part_has_an_instance_of_its_own_and_the_next_goes_where_one_has_ended() -> None:
    state, parts = state_of(a=READY, b=READY), [part(number) for number in range(3)]
    assert places(state, *parts[:2]) == ["a", "b"]
    state.put(parts[2], AT)
    decided(state)
    assert place(state, parts[2]) == "a"  # both have one: in turn
    other = part(0, parent_id="q")
    assert places(state, other) == ["b"]


def test_a_part_waits_for_a_free_place_on_an_instance_without_another() -> None:
    state, others = state_of(a=READY, b=READY), [new_run(request("b", "b")) for _ in range(3)]
    for other in others:
        state.put(other, AT)
    decided(state)
    parts = [part(0), part(1)]
    assert places(state, *parts) == ["a", None]
    state.deactivate(replace(others[0], status=RunStatus.COMPLETED), AT)
    decided(state)
    assert place(state, parts[1]) == "b"


@pytest.mark.parametrize(
    ("b", "second"),
    [
        (AWAY, "a"),
        (UNKNOWN, None),
        (connecting(LOOK_OF_PARTS_S - 1), None),
        (connecting(LOOK_OF_PARTS_S + 1), "a"),
    ],
)
def test_a_part_waits_a_while_for_an_instance_that_connects(b: InstanceState, second: str | None) -> None:
    assert places(state_of(a=READY, b=b), part(0), part(1)) == ["a", second]


def test_a_part_waits_for_the_instance_that_is_named_for_it() -> None:
    state = state_of(a=READY, b=READY)
    first = [part(number, first="a", among=("a", "b")) for number in range(2)]
    assert places(state, *first) == ["a", "a"]
    assert places(state_of(a=AWAY, b=READY), part(0, first="a", among=("a", "b"))) == ["b"]


def test_a_part_uses_only_instances_that_it_may() -> None:
    assert places(state_of(a=READY, b=READY), part(0, among=("b",))) == ["b"]
    assert places(state_of(a=READY, b=READY), part(0, without=("a",))) == ["b"]
    assert AnyWithTag(tag="", among=("a",)).allows(instance("a", enabled=False))
    assert not AnyWithTag(tag="x", among=("a",)).allows(instance("a"))
    assert not AnyWithTag(tag="").allows(instance("a", enabled=False))
