"""The dispatcher: which run starts, where and when, and what happens to waiting runs."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from typing import Any

import pytest

from comfyui_workflow.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    InvalidGraph,
    RemoteFileError,
    StoreError,
)
from comfyui_workflow.runs.events import (
    CancelRequested,
    GraphPrepared,
    PriorityChanged,
    PromptPrepared,
    PromptVanished,
    RunFailed,
)
from comfyui_workflow.runs.model import Phase, RunRequest, RunStatus
from comfyui_workflow.scheduling import state
from comfyui_workflow.scheduling.pacing import Pacing, Stagger
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.stores.journal import now
from comfyui_workflow.workflows.resolve import preliminary_graph
from tests.scheduling.making import AWAY, READY, Fleet, fleet_of, instance, request


def test_two_prompts_on_each_instance_and_the_rest_waits_here() -> None:
    with fleet_of(instance("a"), instance("b")) as fleet:
        ids = fleet.submit(*[request() for _ in range(9)])
        fleet.until(lambda: len(fleet.executing()) == 4)
        assert sorted(fleet.where(each) or "" for each in fleet.executing()) == ["a", "a", "b", "b"]
        fleet.until(lambda: all(fleet.where(each) for each in ids[:6]))  # two more upload their inputs
        queue_status = fleet.dispatcher.queue_status(ids[8])
        assert queue_status is not None
        assert queue_status.position == 5  # two waiting runs, and three on the instance with the fewest
        assert "2 prompts at a time" in str(queue_status.message)
        (first, *_) = before = fleet.executing()
        fleet.finish(first)
        fleet.until(lambda: len(fleet.executing()) == 4 and first not in fleet.executing())
        assert len(fleet.executing() - before) == 1
        assert fleet.executing() < set(ids[:6])


def test_prompts_arrive_in_the_order_of_their_runs_whoever_is_ready_first() -> None:
    with fleet_of(instance("a"), prompts_per_instance=3) as fleet:
        younger_asks = threading.Event()
        first, second, third = (fleet.add(request()).run_id for _ in range(3))

        def prepare(run_id: str) -> None:
            if run_id == first:
                assert younger_asks.wait(10)

        fleet.before_request = prepare
        for each in (first, second, third):
            fleet.dispatcher.start(each)
        fleet.until(lambda: is_ready(fleet, second) and is_ready(fleet, third))
        younger_asks.set()
        fleet.until(lambda: len(fleet.executing()) == 3)
        assert fleet.submitted == [first, second, third]


def is_ready(fleet: Fleet, run_id: str) -> bool:
    return "waiting for a free slot" in (fleet.journal.get(run_id).message or "")


def test_a_run_that_fetches_its_outputs_takes_no_place() -> None:
    with fleet_of(instance("a"), prompts_per_instance=1) as fleet:
        (first,) = fleet.submit(request())
        fleet.until(lambda: fleet.executing() == {first})
        (second,) = fleet.submit(request())
        fleet.until(lambda: fleet.where(second) == "a")
        assert fleet.executing() == {first}
        fleet.release_slot(first)
        fleet.until(lambda: fleet.executing() == {first, second})


def test_a_run_that_restarts_comfyui_holds_back_the_prompts_of_the_others() -> None:
    with fleet_of(instance("a"), instance("b")) as fleet:
        (first,) = fleet.submit(request("a", instance_id="a"))
        fleet.until(lambda: fleet.executing() == {first})
        context = fleet.context(first)
        with context.submissions_held(context.stop):
            second, elsewhere = fleet.submit(request("a", instance_id="a"), request("b", instance_id="b"))
            fleet.until(lambda: is_ready(fleet, second) and elsewhere in fleet.executing())
            assert fleet.executing() == {first, elsewhere}
        fleet.until(lambda: second in fleet.executing())


def test_a_name_and_an_ssh_string_lead_there_and_nowhere_else() -> None:
    with fleet_of(instance("a"), instance("b", enabled=False, price_per_hour=2.0)) as fleet:
        named, same, foreign = fleet.submit(
            request("b", instance_id="b"),
            request("ssh root@b.example"),
            request("ssh root@elsewhere.example"),
        )
        fleet.until(lambda: fleet.executing() == {named, same, foreign})
        assert (fleet.where(named), fleet.where(same), fleet.where(foreign)) == ("b", "b", None)
        assert fleet.journal.get(named).comfyui_input_dir == "/in"
        run = fleet.journal.get(same)  # it keeps the data of its request, and gets the price
        assert (run.comfyui_input_dir, run.placement and run.placement.price_per_hour) == ("/mine/in", 2.0)
        assert run.placement is not None
        fleet.fail(named, ConnectionFailed("refused"))
        fleet.until(lambda: fleet.times_started[named] == 2 and named in fleet.executing())
        assert fleet.where(named) == "b"


def test_only_instances_that_are_enabled_have_the_tag_and_are_ready_are_chosen() -> None:
    with fleet_of(instance("a", enabled=False), instance("b"), instance("c", tags=("video",))) as fleet:
        fleet.monitors.states["b"] = AWAY
        video, other = fleet.submit(request("any:video"), request("any:print"))
        fleet.until(lambda: fleet.executing() == {video})
        assert fleet.where(video) == "c"
        queue_status = fleet.dispatcher.queue_status(other)
        assert queue_status is not None
        assert queue_status.message == "Waiting for an instance: none with the tag print is enabled"
        fleet.directory.instances.append(instance("d", tags=("print", "video")))
        fleet.monitors.states["d"] = READY
        fleet.dispatcher.wake()
        fleet.until(lambda: fleet.executing() == {video, other})
        assert fleet.monitors.wanted >= {"c", "d"}


def test_why_a_run_waits_is_told() -> None:
    with fleet_of(instance("a"), instance("b")) as fleet:
        fleet.monitors.states = {"a": AWAY}
        (run,) = fleet.submit(request())
        fleet.until(lambda: fleet.monitors.wanted == {"a", "b"})
        queue_status = fleet.dispatcher.queue_status(run)
        assert queue_status is not None
        assert queue_status.message == "Waiting for an instance. a: no route to host; b: it is unknown"
        fleet.monitors.states["b"] = AWAY
        queue_status = fleet.dispatcher.queue_status(run)
        assert queue_status is not None
        assert queue_status.message == "Waiting for an instance. a, b: no route to host"


def test_priority_goes_before_age_and_can_be_changed_while_it_waits() -> None:
    with fleet_of(instance("a"), prompts_per_instance=1, staging_per_instance=0) as fleet:
        (running,) = fleet.submit(request())
        fleet.until(lambda: fleet.executing() == {running})
        old, urgent, late = fleet.submit(request(), request(priority=5), request())
        fleet.finish(running)
        fleet.until(lambda: fleet.executing() == {urgent})
        fleet.journal.record(late, PriorityChanged(priority=1))
        fleet.dispatcher.recheck(late)
        fleet.finish(urgent)
        fleet.until(lambda: fleet.executing() == {late})
        fleet.finish(late)
        fleet.until(lambda: fleet.executing() == {old})


CHECKPOINTS = {
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd.safetensors"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["4", 0]}},
}
CHECKPOINTS_FILE = {
    "nodes": [
        {"id": 4, "type": "CheckpointLoaderSimple", "widgets_values": ["sd.safetensors"], "outputs": [{}]},
        {"id": 9, "type": "SaveImage", "inputs": [{"name": "images", "link": 1}], "widgets_values": ["x"]},
    ],
    "links": [[1, 4, 0, 9, 0, "IMAGE"]],
}


@pytest.mark.parametrize(
    "workflow",
    [{"graph": CHECKPOINTS}, {"graph": {}, "editor_file": CHECKPOINTS_FILE}],
    ids=["graph", "file"],
)
def test_what_is_loaded_is_judged_by_what_runs_not_by_what_is_saved(workflow: dict[str, Any]) -> None:
    with fleet_of(instance("a"), instance("b")) as fleet:

        def prepare(run_id: str) -> None:
            asked = fleet.journal.get(run_id).request
            fleet.journal.record(run_id, GraphPrepared(graph=preliminary_graph(asked)))

        fleet.before_request = prepare
        xl = {"4.ckpt_name": "xl.safetensors"}
        on_a, on_b = fleet.submit(
            request("a", instance_id="a", **workflow, inputs=xl), request("b", instance_id="b", **workflow)
        )
        fleet.until(lambda: fleet.executing() == {on_a, on_b})
        wants_xl, wants_sd = fleet.submit(request(**workflow, inputs=xl), request(**workflow))
        fleet.until(lambda: fleet.executing() == {on_a, on_b, wants_xl, wants_sd})
        assert (reason(fleet, wants_xl), fleet.where(wants_xl)) == ("has xl.safetensors loaded", "a")
        assert (reason(fleet, wants_sd), fleet.where(wants_sd)) == ("has sd.safetensors loaded", "b")


def reason(fleet: Fleet, run_id: str) -> str:
    placement = fleet.journal.get(run_id).placement
    return placement.reason if placement else ""


def test_who_has_brought_its_inputs_gives_way_to_a_higher_priority() -> None:
    with fleet_of(instance("a"), prompts_per_instance=1) as fleet:
        (running,) = fleet.submit(request())
        fleet.until(lambda: fleet.executing() == {running})
        (next_one,) = fleet.submit(request())
        fleet.until(lambda: fleet.where(next_one) == "a")
        (urgent,) = fleet.submit(request(priority=1))
        fleet.until(lambda: fleet.where(urgent) == "a" and fleet.where(next_one) is None)
        fleet.finish(running)
        fleet.until(lambda: fleet.executing() == {urgent})
        fleet.finish(urgent)
        fleet.until(lambda: fleet.executing() == {next_one})


def test_who_waits_for_a_place_goes_to_an_instance_that_has_nothing_to_do() -> None:
    with fleet_of(instance("a"), instance("b"), prompts_per_instance=1) as fleet:
        fleet.monitors.states["b"] = AWAY
        (running,) = fleet.submit(request())
        fleet.until(lambda: fleet.executing() == {running})
        (next_one,) = fleet.submit(request())
        fleet.until(lambda: fleet.where(next_one) == "a")
        fleet.monitors.states["b"] = READY
        fleet.dispatcher.wake()
        fleet.until(lambda: fleet.executing() == {running, next_one})
        assert fleet.where(next_one) == "b"


def test_who_waits_for_a_place_does_not_wait_for_an_instance_that_went_away() -> None:
    with fleet_of(instance("a"), prompts_per_instance=1) as fleet:
        (running,) = fleet.submit(request())
        fleet.until(lambda: fleet.executing() == {running})
        (next_one,) = fleet.submit(request())
        fleet.until(lambda: fleet.where(next_one) == "a")
        fleet.monitors.states["a"] = AWAY
        fleet.dispatcher.wake()
        fleet.until(lambda: fleet.where(next_one) is None)
        queue_status = fleet.dispatcher.queue_status(next_one)
        assert queue_status is not None
        assert queue_status.message == "Waiting for an instance. a: no route to host"


def test_trouble_that_meets_a_run_wherever_it_goes_does_not_send_it_round_in_circles() -> None:
    with fleet_of(instance("a")) as fleet:
        (run,) = fleet.submit(request())
        fleet.until(lambda: fleet.executing() == {run})
        fleet.monitors.believes_reports = False  # the monitor itself sees no problem
        fleet.fail(run, ConnectionFailed("cut"))
        fleet.until(lambda: fleet.dispatcher.queue_status(run) is not None)
        rests = fleet.dispatcher.queue_status(run)
        assert rests is not None
        assert rests.message is None  # the run has its own message
        assert "cut; another instance is chosen" in str(fleet.journal.get(run).message)
        fleet.until(lambda: fleet.times_started[run] == 2)


def test_a_run_leaves_an_instance_in_trouble_before_its_prompt_is_there() -> None:
    with fleet_of(instance("a", price_per_hour=0.1), instance("b")) as fleet:
        (run,) = fleet.submit(request())
        fleet.until(lambda: fleet.executing() == {run})
        assert fleet.where(run) == "a"
        fleet.fail(run, AuthenticationFailed("no key is accepted"))
        fleet.until(lambda: fleet.where(run) == "b" and fleet.executing() == {run})
        assert fleet.monitors.state("a").trouble == "no key is accepted"


@pytest.mark.parametrize("is_another_ready", [True, False])
def test_a_prompt_that_was_submitted_is_given_up_only_for_an_instance_that_is_there(
    is_another_ready: bool,
) -> None:
    with fleet_of(instance("a", price_per_hour=0.1), instance("b")) as fleet:
        fleet.monitors.states["b"] = READY if is_another_ready else AWAY
        (run,) = fleet.submit(request())
        fleet.until(lambda: fleet.executing() == {run})
        fleet.journal.record(run, PromptPrepared(prompt_id="p", boot_marker=None))
        fleet.fail(run, ConnectionFailed("cut"))
        if is_another_ready:
            fleet.until(lambda: fleet.where(run) == "b" and fleet.executing() == {run})
            assert fleet.journal.get(run).prompt_id is None
        else:  # it continues at the instance that has its prompt
            fleet.until(lambda: fleet.times_started[run] == 2)
            assert (fleet.where(run), fleet.journal.get(run).prompt_id) == ("a", "p")


def test_what_no_instance_can_run_fails_with_the_reason_of_each() -> None:
    with fleet_of(instance("a"), instance("b"), instance("c", enabled=False)) as fleet:
        (run,) = fleet.submit(request())
        for _ in range(2):
            fleet.until(lambda: fleet.executing() == {run})
            where = fleet.where(run)
            fleet.fail(run, InvalidGraph(f"{where} lacks a model"))
            fleet.until(lambda here=where: fleet.where(run) != here)  # type: ignore[misc]
        failed = fleet.journal.wait(run, lambda run: run.is_finished, 10)
        assert (failed.status, failed.error_code) == (RunStatus.FAILED, "invalid_workflow")
        assert "a: a lacks a model" in str(failed.error_message)
        assert "b: b lacks a model" in str(failed.error_message)


def test_a_refusal_by_one_leaves_the_row_to_the_others() -> None:
    with fleet_of(instance("a", price_per_hour=0.1), instance("b")) as fleet:
        fleet.monitors.states["b"] = AWAY
        (refused,) = fleet.submit(request())
        fleet.until(lambda: fleet.executing() == {refused})
        fleet.fail(refused, RemoteFileError("no space left"))
        fleet.until(lambda: fleet.dispatcher.queue_status(refused) is not None)
        (other,) = fleet.submit(request())
        fleet.until(lambda: fleet.executing() == {other})
        queue_status = fleet.dispatcher.queue_status(refused)
        assert queue_status is not None
        assert queue_status.message == "Waiting for an instance. a: no space left; b: no route to host"


def test_when_no_instance_is_ready_for_too_long_the_run_fails_and_says_why() -> None:
    with fleet_of(instance("a"), any_patience_s=0.0) as fleet:
        fleet.monitors.states["a"] = AWAY
        (run,) = fleet.submit(request())
        failed = fleet.journal.wait(run, lambda run: run.is_finished, 10)
        assert (failed.error_code, failed.error_message) == (
            "no_instance",
            "No instance took it. Waiting for an instance. a: no route to host",
        )


def test_a_run_whose_instance_was_removed_fails() -> None:
    with fleet_of() as fleet:
        (run,) = fleet.submit(request("gone", instance_id="gone"))
        failed = fleet.journal.wait(run, lambda run: run.is_finished, 10)
        assert (failed.status, failed.error_code) == (RunStatus.FAILED, "instance_not_found")


def test_a_waiting_run_is_cancelled_at_once_and_a_later_one_as_well() -> None:
    with fleet_of() as fleet:
        waiting, later = fleet.submit(request(), request(not_before=now() + timedelta(hours=1)))
        queue_status = fleet.dispatcher.queue_status(later)
        assert queue_status is not None
        assert "To be started at" in str(queue_status.message)
        for run in (waiting, later):
            fleet.journal.record(run, CancelRequested())
            fleet.dispatcher.recheck(run)
            assert fleet.journal.wait(run, lambda run: run.is_finished, 10).status is RunStatus.CANCELLED


def test_a_run_that_is_held_back_is_cancelled_at_once() -> None:
    with fleet_of() as fleet:
        held_back = fleet.add(request()).run_id
        fleet.journal.record(held_back, CancelRequested())
        fleet.dispatcher.recheck(held_back)
        assert fleet.journal.wait(held_back, lambda run: run.is_finished, 10).status is RunStatus.CANCELLED


def test_many_that_wait_are_cancelled_before_any_of_them_has_its_turn() -> None:
    with fleet_of(instance("a"), prompts_per_instance=1, staging_per_instance=0) as fleet:
        (running,) = fleet.submit(request())
        fleet.until(lambda: fleet.executing() == {running})
        hour = now() + timedelta(hours=1)
        waiting = fleet.submit(*(request(not_before=hour if n % 2 else None) for n in range(100)))
        service = RunService(fleet.journal, fleet.store, fleet.dispatcher)
        assert service.cancel_all([running, *waiting], "because") == 101
        fleet.finish(running)
        runs = [fleet.journal.wait(each, lambda run: run.is_finished, 10) for each in waiting]
        assert {(run.status, run.error_message) for run in runs} == {(RunStatus.CANCELLED, "because")}
        assert set(fleet.times_started) == {running}
        assert fleet.journal.get(running).is_cancel_requested
        assert service.cancel_all(waiting) == 0


def test_a_run_that_is_carried_out_is_woken_by_a_cancel_and_by_a_stop() -> None:
    with fleet_of(instance("a")) as fleet:
        first, second = fleet.submit(request(), request())
        fleet.until(lambda: fleet.executing() == {first, second})
        contexts = [fleet.context(each) for each in (first, second)]
        fleet.dispatcher.recheck(first)  # its priority may have changed
        fleet.journal.record(second, CancelRequested())
        fleet.dispatcher.recheck(second)
        assert [context.cancelled.is_set for context in contexts] == [False, True]
        assert not any(context.stop.is_set for context in contexts)
    assert all(context.stop.is_set for context in contexts)


def test_a_run_learns_that_its_instance_was_removed() -> None:
    with fleet_of(instance("a")) as fleet:
        (run,) = fleet.submit(request("a", instance_id="a"))
        fleet.until(lambda: fleet.executing() == {run})
        assert not fleet.context(run).instance_gone.is_set
        fleet.directory.instances.clear()
        fleet.dispatcher.wake()
        assert fleet.context(run).instance_gone.wait(10)


def test_a_staggered_run_starts_when_it_is_due() -> None:
    with fleet_of(instance("a")) as fleet:
        (later,) = fleet.submit(request(not_before=now() + timedelta(seconds=0.3)))
        assert fleet.executing() == set()
        fleet.until(lambda: fleet.executing() == {later})
        assert now() >= (fleet.journal.get(later).request.not_before or now())


def test_a_run_whose_ssh_string_is_none_any_more_fails_with_the_sentence_that_refuses_it() -> None:
    with fleet_of(instance("a")) as fleet:
        (run_id,) = fleet.submit(request("ssh -D 1080 root@host"))
        fleet.until(lambda: fleet.journal.get(run_id).is_finished)
        run = fleet.journal.get(run_id)
        assert run.error_code == "invalid_ssh_connection"
        assert "dynamic forwarding is not accepted" in str(run.error_message)


def staggered(seconds: float, count: int) -> list[RunRequest]:
    return [request(batch_id="b", stagger_s=seconds) for _ in range(count)]


def test_runs_of_a_staggered_batch_that_all_may_start_by_now_do_not_start_at_once() -> None:
    with fleet_of(instance("a"), instance("b")) as fleet:
        first, second, third = fleet.submit(*staggered(3600, 3))
        (other,) = fleet.submit(request())
        fleet.until(
            lambda: fleet.executing() == {first, other}
        )  # the other run does not wait behind the batch
        fleet.journal.record(first, PromptPrepared(prompt_id="p", boot_marker=None))
        fleet.finish(first)
        fleet.until(lambda: fleet.executing() == {other})
        for each in (second, third):
            queue_status = fleet.dispatcher.queue_status(each)
            assert queue_status is not None
            assert "The next run of its batch is to be started at" in str(queue_status.message)
    with fleet_of(instance("a"), instance("b"), store=fleet.store) as fleet:
        assert RunService(fleet.journal, fleet.store, fleet.dispatcher).resume() == 3
        (late,) = fleet.submit(request())
        fleet.until(lambda: late in fleet.executing())
        assert fleet.executing() == {other, late}


def test_time_lies_between_two_runs_of_a_batch_also_when_instances_become_free_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts: list[datetime] = []
    monkeypatch.setattr(Pacing, "submitted", _noting(starts))
    with fleet_of(instance("a"), instance("b"), prompts_per_instance=1) as fleet:
        busy = fleet.submit(request("a", instance_id="a"), request("b", instance_id="b"))
        fleet.until(lambda: fleet.executing() == set(busy))
        runs = fleet.submit(*staggered(0.5, 2))
        fleet.until(lambda: all(is_ready(fleet, each) for each in runs))
        for each in busy:
            fleet.finish(each)
        fleet.until(lambda: fleet.executing() == set(runs))
    assert starts[1] - starts[0] >= timedelta(seconds=0.5)


class SetClock:
    """A wall clock that somebody sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = timedelta()
        monkeypatch.setattr("comfyui_workflow.stores.journal.datetime", self)

    def now(self, zone: tzinfo) -> datetime:
        return datetime.now(zone) + self.ahead


@pytest.mark.parametrize("ahead", [timedelta(hours=2), timedelta(hours=-2)])
def test_a_staggered_batch_does_not_wait_for_a_clock_that_was_set(
    monkeypatch: pytest.MonkeyPatch, ahead: timedelta
) -> None:
    """Between the order and the starts."""
    clock = SetClock(monkeypatch)
    with fleet_of(instance("a"), prompts_per_instance=9) as fleet:
        asked = [
            replace(each, not_before=now() + timedelta(seconds=0.3 * n))
            for n, each in enumerate(staggered(0.3, 3))
        ]
        runs = fleet.submit(*asked)
        assert len(fleet.executing()) < 3
        clock.ahead = ahead
        fleet.until(lambda: fleet.executing() == set(runs))


def test_a_staggered_batch_goes_on_after_a_restart_with_a_clock_that_was_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SetClock(monkeypatch)
    clock.ahead = timedelta(hours=2)
    with fleet_of(instance("a"), prompts_per_instance=9) as fleet:
        asked = [replace(each, not_before=now() + timedelta(hours=1)) for each in staggered(0.2, 2)]
        first, second = fleet.submit(*asked)
        assert fleet.executing() == set()
        (begun,) = fleet.submit(*staggered(0.2, 1))
        fleet.until(lambda: fleet.executing() == {begun})
        fleet.journal.record(begun, PromptPrepared(prompt_id="p", boot_marker=None))
    clock.ahead = timedelta()
    with fleet_of(instance("a"), store=fleet.store, prompts_per_instance=9) as fleet:
        assert RunService(fleet.journal, fleet.store, fleet.dispatcher).resume() == 3
        fleet.until(lambda: fleet.executing() == {begun, first, second})


def _noting(starts: list[datetime]) -> Callable[[Pacing, Stagger, datetime], None]:
    original = Pacing.submitted

    def submitted(self: Pacing, stagger: Stagger, at: datetime) -> None:
        starts.append(at)
        original(self, stagger, at)

    return submitted


def test_after_a_restart_prompts_that_are_there_are_carried_on_however_many() -> None:
    with fleet_of(instance("a"), prompts_per_instance=1) as fleet:
        runs = [fleet.add(request("ssh root@a.example")) for _ in range(3)]
        for run in runs[:2]:
            fleet.journal.record(run.run_id, PromptPrepared(prompt_id="p", boot_marker=None))
        assert RunService(fleet.journal, fleet.store, fleet.dispatcher).resume() == 3
        fleet.until(lambda: fleet.executing() == {run.run_id for run in runs[:2]})
        fleet.finish(runs[0].run_id)
        fleet.until(lambda: fleet.executing() == {runs[1].run_id})
        fleet.finish(runs[1].run_id)
        fleet.until(lambda: fleet.executing() == {runs[2].run_id})


def test_what_a_prompt_did_while_no_server_ran_is_not_counted() -> None:
    with fleet_of(instance("a")) as fleet:
        run = fleet.add(request("ssh root@a.example")).run_id
        fleet.journal.record(run, PromptPrepared(prompt_id="p", boot_marker=None))
        began = now() - timedelta(hours=3)
        seen = {"gpu_since": began, "last_update": began + timedelta(seconds=6)}
        executing = {"status": RunStatus.EXECUTING, "phase": Phase.EXECUTING, **seen}
        fleet.store.update(run, lambda run: replace(run, **executing))  # type: ignore[arg-type]
        assert RunService(fleet.journal, fleet.store, fleet.dispatcher).resume() == 1
        fleet.until(lambda: fleet.executing() == {run})
        assert fleet.journal.record(run, PromptVanished(message="lost")).gpu_s == 6.0


def test_an_end_that_cannot_be_saved_is_saved_later(monkeypatch: pytest.MonkeyPatch) -> None:
    with fleet_of() as fleet:
        run = fleet.add(request("gone", instance_id="gone"))
        record, tries = fleet.journal.record, []

        def full_at_first(*arguments: object) -> object:
            tries.append(arguments)
            if len(tries) == 1:
                raise StoreError("no space left")
            return record(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(fleet.journal, "record", full_at_first)
        fleet.dispatcher.start(run.run_id)
        assert fleet.journal.wait(run.run_id, lambda run: run.is_finished, 10).is_finished


def test_a_run_that_is_taken_up_again_just_when_its_turn_ends_is_not_forgotten() -> None:
    with fleet_of(instance("a")) as fleet:
        (run,) = fleet.submit(request())
        fleet.until(lambda: fleet.executing() == {run})
        service = RunService(fleet.journal, fleet.store, fleet.dispatcher)
        fleet.before_release = lambda: service.retry(run)
        fleet.end(run, RunFailed(code="connection_failed", message="cut"))
        fleet.until(lambda: fleet.times_started[run] == 2)
        fleet.finish(run)
        assert fleet.journal.wait(run, lambda run: run.is_finished, 10).status is RunStatus.COMPLETED


def test_an_old_refusal_is_not_believed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "REFUSALS_AGE", timedelta(seconds=0.2))
    with fleet_of(instance("a", price_per_hour=0.1), instance("b")) as fleet:
        fleet.monitors.states["b"] = AWAY
        (run,) = fleet.submit(request())
        fleet.until(lambda: fleet.executing() == {run})
        fleet.fail(run, InvalidGraph("a lacks a model"))
        fleet.until(lambda: fleet.times_started[run] == 2)
        assert fleet.where(run) == "a"


def test_nothing_is_started_after_a_stop() -> None:
    fleet = Fleet(instance("a"))
    fleet.close()
    fleet.submit(request())
    assert fleet.executing() == set()


def test_a_turn_knows_that_the_instance_of_its_run_was_removed() -> None:
    with fleet_of(instance("a")) as fleet:
        (run,) = fleet.submit(request())
        fleet.until(lambda: fleet.executing() == {run})
        assert not fleet.is_instance_gone(run)
        fleet.directory.instances.clear()
        assert fleet.is_instance_gone(run)
