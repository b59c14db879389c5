"""The runner between an instance that refuses and a disk that is full."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from comfyui_workflow.errors import AuthenticationFailed, ConnectionFailed, StoreError
from comfyui_workflow.execution.attempt import has_advanced
from comfyui_workflow.execution.live_progress import LiveView
from comfyui_workflow.execution.runner import Runner, RunnerOptions
from comfyui_workflow.retry import FurthestSeen, Patience
from comfyui_workflow.runs.events import (
    CancelRequested,
    ExecutionStarted,
    NoticeGiven,
    PhaseEntered,
    PromptPrepared,
    Saving,
    TroubleMet,
)
from comfyui_workflow.runs.model import Phase, Run, RunRequest, RunStatus, new_run_id
from comfyui_workflow.runs.target import target_of_record
from comfyui_workflow.scheduling.executor import FreeTurn
from comfyui_workflow.stores.base import Change
from comfyui_workflow.stores.journal import RunJournal, now
from comfyui_workflow.stores.memory import MemoryRunStore
from comfyui_workflow.workflows.model import Workflow


class FullStore(MemoryRunStore):
    """Takes nothing that must be saved, for the first `refusals` times."""

    def __init__(self, refusals: int) -> None:
        super().__init__()
        self._left = refusals

    def update(self, run_id: str, change: Change, saving: Saving = Saving.STEP) -> Run:
        if saving in (Saving.MUST, Saving.SYNCED) and self._left:
            self._left -= 1
            raise StoreError("No space left on device")
        return super().update(run_id, change, saving)


class Refusing:
    """A pool whose instance accepts no key."""

    def __init__(self, error: Exception | None = None) -> None:
        self.attempts = 0
        self._error = error or AuthenticationFailed("no key is accepted")

    @contextmanager
    def lease(self, _key: object, *, should_stop: Callable[[], bool]) -> Iterator[Any]:
        self.attempts += 1
        raise self._error
        yield


@dataclass(frozen=True, kw_only=True)
class OfInstance(FreeTurn):
    """Of a named one, which is removed while `removed` is set."""

    removed: threading.Event

    def is_instance_gone(self, run: Run) -> bool:
        return self.removed.is_set()


def started(
    store: MemoryRunStore,
    links: "Refusing | LettingThroughWhatIsSmall",
    removed: threading.Event | None = None,
    patience_s: float = 120.0,
) -> tuple[RunJournal, str, Callable[[Callable[[], bool]], None]]:
    journal = RunJournal(store)
    request = RunRequest(
        target=target_of_record("root@host"),
        workflow=Workflow(graph={}),
        workflow_name="w",
        output_dir="/nowhere",
        comfyui_port=1,
        comfyui_input_dir="",
        comfyui_output_dir="",
    )
    run = Run(run_id=new_run_id(now()), request=request, queue_time=now(), last_update=now())
    journal.add(run)
    runner = Runner(journal, links, RunnerOptions(contact_patience_s=patience_s), LiveView())  # type: ignore[arg-type]
    return (
        journal,
        run.run_id,
        lambda should_stop: runner.execute(
            run.run_id, OfInstance(should_stop=should_stop, removed=removed or threading.Event())
        ),
    )


def test_an_end_that_cannot_be_saved_yet_is_saved_later() -> None:
    links = Refusing()
    journal, run_id, execute = started(FullStore(refusals=1), links)
    execute(lambda: False)
    assert journal.get(run_id).status is RunStatus.FAILED
    assert links.attempts == 2


def test_a_full_disk_is_not_tried_in_a_hurry() -> None:
    links = Refusing()
    _, _, execute = started(FullStore(refusals=1_000_000), links)
    stop = threading.Event()
    timer = threading.Timer(1.0, stop.set)
    timer.start()
    execute(stop.is_set)
    timer.join()
    assert links.attempts <= 4


def test_a_run_is_cancelled_where_nobody_can_be_asked_any_more_and_tells_what_it_waits_for() -> None:
    removed = threading.Event()
    journal, run_id, execute = started(MemoryRunStore(), Refusing(ConnectionFailed("no route")), removed)
    journal.record(run_id, PromptPrepared(prompt_id="p", boot_marker=None))
    stop = threading.Event()
    runner = threading.Thread(target=execute, args=(stop.is_set,))
    runner.start()
    try:
        away = journal.wait(run_id, lambda run: run.message == "no route; trying again", 10)
        assert away.status is RunStatus.QUEUED
        journal.record(run_id, CancelRequested())
        aim = "no route; trying again, to cancel the prompt there"
        assert journal.wait(run_id, lambda run: run.message == aim, 10).message == aim
        removed.set()
        ended = journal.wait(run_id, lambda run: run.is_finished, 20)
        assert ended.status is RunStatus.CANCELLED
        assert "Its instance was removed" in str(ended.error_message)
    finally:
        stop.set()
        runner.join(10)
    assert not runner.is_alive()


class LettingThroughWhatIsSmall:
    """A pool of a link that is there whenever it is asked, and over which nothing comes: as where large
    packets are lost."""

    def __init__(self) -> None:
        self.attempts = 0

    @contextmanager
    def lease(self, _key: object, *, should_stop: Callable[[], bool]) -> Iterator[Any]:
        self.attempts += 1
        yield self

    def prove(self, *, again: bool) -> None:
        pass

    def refuse_if_broken(self) -> None:
        raise ConnectionFailed("no answer within 30 s")


def test_a_link_that_connects_and_brings_nothing_is_not_tried_for_ever() -> None:
    links = LettingThroughWhatIsSmall()
    journal, run_id, execute = started(MemoryRunStore(), links, patience_s=2.0)
    stop = threading.Event()
    last = threading.Timer(60, stop.set)
    last.start()
    execute(stop.is_set)
    last.cancel()
    ended = journal.get(run_id)
    assert (ended.status, ended.error_message) == (RunStatus.FAILED, "no answer within 30 s")
    assert 3 <= links.attempts <= 6


def test_only_what_comes_further_than_before_is_progress() -> None:
    seen: list[int] = []
    furthest = FurthestSeen(lambda: seen.append(1))
    for name, done_bytes in (("a", 0), ("a", 5), ("a", 5), ("a", 3), ("b", 3), ("a", 6)):
        furthest.note(name, done_bytes)
    assert len(seen) == 3


def test_what_only_says_what_is_done_for_a_run_brings_it_no_further() -> None:
    journal, run_id, _ = started(MemoryRunStore(), Refusing())
    said = (
        PhaseEntered(phase=Phase.CONNECTING, message="Connecting"),
        NoticeGiven(message="look"),
        TroubleMet(message="cut"),
        PromptPrepared(prompt_id="p", boot_marker=None),
        ExecutionStarted(),
        TroubleMet(message="cut"),
        ExecutionStarted(),
        CancelRequested(),
    )
    advanced = []
    for event in said:
        before = journal.get(run_id)
        advanced.append(has_advanced(before, journal.record(run_id, event)))
    assert advanced == [False, False, False, True, True, False, False, False]


def test_to_wait_for_something_else_is_no_failing() -> None:
    now_s = 0.0
    patience = Patience(lambda: now_s)
    patience.next_wait_s()
    now_s = 100.0
    patience.excuse(90.0)
    assert patience.failing_for_s() == 10.0
    patience.reset()
    patience.excuse(90.0)
    assert patience.failing_for_s() == 0.0


def test_who_answers_is_asked_again_soon_and_is_given_no_more_time() -> None:
    now_s = 0.0
    patience = Patience(lambda: now_s)
    longest_s = max(patience.next_wait_s() for _ in range(10))
    now_s = 100.0
    patience.reached()
    assert patience.next_wait_s() < longest_s / 2
    assert patience.failing_for_s() == 100.0
