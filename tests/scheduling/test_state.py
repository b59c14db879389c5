"""The scheduler's state alone: events in, instructions out."""

from dataclasses import replace
from datetime import timedelta

from comfyui_workflow.runs.model import Run, RunRequest, RunStatus, new_run_id
from comfyui_workflow.scheduling.capacity import Capacity
from comfyui_workflow.scheduling.state import (
    Decision,
    EndRun,
    FindModels,
    MonitorInstance,
    NotifyCancelled,
    NotifyInstanceRemoved,
    Requeue,
    SchedulerState,
    StartRun,
)
from comfyui_workflow.stores.journal import now
from tests.scheduling.making import READY, FakeMonitors, fleet_of, instance, request

AT = now()
MODELS = frozenset({"sd.safetensors"})


def state_of(*names: str) -> SchedulerState:
    states = FakeMonitors(dict.fromkeys(names, READY))
    state = SchedulerState(Capacity(states, most_prompts=2, most_staging=1), timedelta(days=1))
    state.update_instances([instance(name) for name in names], number=1)
    return state


def new_run(asked: RunRequest | None = None) -> Run:
    return Run(run_id=new_run_id(now()), request=asked or request(), queue_time=AT, last_update=AT)


def decided(state: SchedulerState) -> Decision:
    return state.decide(AT, most_endings=20)


def started(state: SchedulerState) -> list[str]:
    return [each.run_id for each in decided(state).instructions if isinstance(each, StartRun)]


def test_a_run_that_is_put_is_started_once_where_there_is_room() -> None:
    state, runs = state_of("a"), [new_run() for _ in range(4)]
    for run in runs:
        state.put(run, AT)
    assert started(state) == [run.run_id for run in runs[:3]]
    assert started(state) == []
    assert decided(state).instructions == (MonitorInstance(instance=instance("a")),)
    state.deactivate(replace(runs[0], status=RunStatus.COMPLETED), AT)
    assert started(state) == [runs[3].run_id]


def test_a_run_that_is_put_while_it_is_active_is_put_again_when_its_turn_is_over() -> None:
    state, run = state_of("a"), new_run()
    state.put(run, AT)
    decided(state)
    state.put(run, AT)  # the run ended, and was retried at that moment
    finished = replace(run, status=RunStatus.FAILED)
    assert state.deactivate(finished, AT) == (Requeue(run_id=run.run_id),)
    state.put(finished, AT)  # a finished run is ignored
    assert started(state) == []


def test_the_models_of_a_run_are_asked_for_before_they_choose_its_instance() -> None:
    state = state_of("a", "b")
    first, second, third = (new_run() for _ in range(3))
    state.put(first, AT)
    decided(state)
    state.submitted(first.run_id, MODELS, AT)
    state.put(second, AT)
    state.put(third, AT)
    decision = decided(state)
    assert FindModels(run_id=second.run_id) in decision.instructions
    assert not any(isinstance(each, StartRun) for each in decision.instructions)
    assert decision.wake_at == AT
    state.set_models(second.run_id, MODELS)
    assert started(state) == [second.run_id]
    here = state.active(first.run_id).instance_id
    assert state.active(second.run_id).instance_id == here


def test_an_active_run_that_is_cancelled_or_loses_its_instance_is_told() -> None:
    state, run = state_of("a"), new_run()
    state.put(run, AT)
    decided(state)
    active = state.active(run.run_id)
    assert state.change(replace(run, priority=3), AT) == ()
    assert state.change(replace(run, is_cancel_requested=True), AT) == (NotifyCancelled(run=active),)
    state.update_instances([], number=2)
    assert NotifyInstanceRemoved(run=active) in decided(state).instructions


def test_an_older_look_at_the_directory_that_comes_late_is_passed_over() -> None:
    state, run = state_of(), new_run(request("a", instance_id="a"))
    state.update_instances([instance("a")], number=3)
    state.update_instances([], number=2)
    state.put(run, AT)
    decision = decided(state)
    assert not any(isinstance(each, EndRun) for each in decision.instructions)
    assert StartRun(run_id=run.run_id) in decision.instructions


def test_whoever_reads_a_record_under_the_lock_is_found_out() -> None:
    """Each test with a fleet asserts at its end that there was no such access."""
    with fleet_of(instance("a")) as fleet:
        (run,) = fleet.submit(request())
        fleet.until(lambda: fleet.executing() == {run})
        assert fleet.lock_watch.offences == []
        with fleet.dispatcher._changed:
            fleet.journal.get(run)
        assert fleet.lock_watch.offences == ["a record is read"]
        fleet.lock_watch.offences.clear()
