"""The runner with an instance that refuses the key, a broken connection, and a full disk."""

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import AuthenticationFailed, ConnectionFailed, StoreError
from comfyui_workflow.execution.attempt import has_advanced
from comfyui_workflow.execution.live_progress import LiveProgress
from comfyui_workflow.execution.runner import Runner, RunnerOptions
from comfyui_workflow.execution.sent_pictures import FOLDER, sent_file
from comfyui_workflow.retry import Backoff, HighWaterMarks
from comfyui_workflow.runs.events import (
    AttemptFailed,
    CancelRequested,
    Durability,
    ExecutionStarted,
    NodesPlanned,
    NoticeAdded,
    OutputsFetched,
    PhaseEntered,
    PromptPrepared,
    PromptSentAgain,
    PromptSucceeded,
)
from comfyui_workflow.runs.model import (
    NodeProgress,
    OutputFile,
    Phase,
    Run,
    RunRequest,
    RunStatus,
    new_run_id,
)
from comfyui_workflow.runs.target import target_of_record
from comfyui_workflow.scheduling.executor import UnlimitedContext
from comfyui_workflow.stores.base import Change
from comfyui_workflow.stores.journal import RunJournal, now
from comfyui_workflow.stores.memory import MemoryRunStore
from comfyui_workflow.workflows.model import Workflow


class FullStore(MemoryRunStore):
    """A store that refuses the first `refusals` events that must be saved."""

    def __init__(self, refusals: int) -> None:
        super().__init__()
        self._left = refusals

    def update(self, run_id: str, change: Change, saving: Durability = Durability.STEP) -> Run:
        if saving in (Durability.MUST, Durability.SYNCED) and self._left:
            self._left -= 1
            raise StoreError("No space left on device")
        return super().update(run_id, change, saving)


class Refusing:
    """A pool whose instance accepts no key."""

    def __init__(self, error: Exception | None = None) -> None:
        self.attempts = 0
        self._error = error or AuthenticationFailed("no key is accepted")

    @contextmanager
    def lease(self, _key: object, *, stop: CancelToken) -> Iterator[Any]:
        self.attempts += 1
        raise self._error
        yield


@dataclass(frozen=True, kw_only=True)
class OfInstance(UnlimitedContext):
    """The context of a run on a named instance, which may be removed."""

    def is_instance_gone(self, run: Run) -> bool:
        return self.instance_gone.is_set


def started(
    store: MemoryRunStore,
    sessions: "Refusing | LettingThroughWhatIsSmall",
    patience_s: float = 120.0,
    output_dir: Path = Path("/nowhere"),
) -> tuple[RunJournal, str, Callable[[UnlimitedContext], None]]:
    journal = RunJournal(store)
    request = RunRequest(
        target=target_of_record("root@host"),
        workflow=Workflow(graph={}),
        workflow_name="w",
        output_dir=str(output_dir),
        comfyui_port=1,
        comfyui_input_dir="",
        comfyui_output_dir="",
    )
    run = Run(run_id=new_run_id(now()), request=request, queue_time=now(), last_update=now())
    journal.add(run)
    runner = Runner(journal, sessions, RunnerOptions(contact_patience_s=patience_s), LiveProgress())  # type: ignore[arg-type]
    return (
        journal,
        run.run_id,
        lambda context: runner.execute(run.run_id, context),
    )


def test_an_end_that_cannot_be_saved_yet_is_saved_later() -> None:
    sessions = Refusing()
    journal, run_id, execute = started(FullStore(refusals=1), sessions)
    execute(UnlimitedContext(stop=CancelToken()))
    assert journal.get(run_id).status is RunStatus.FAILED
    assert sessions.attempts == 2


def test_a_full_disk_is_not_tried_in_a_hurry() -> None:
    sessions = Refusing()
    _, _, execute = started(FullStore(refusals=1_000_000), sessions)
    stop = CancelToken()
    timer = threading.Timer(1.0, stop.cancel)
    timer.start()
    execute(UnlimitedContext(stop=stop))
    timer.join()
    assert sessions.attempts <= 4


def test_a_run_is_cancelled_where_nobody_can_be_asked_any_more_and_tells_what_it_waits_for() -> None:
    journal, run_id, execute = started(MemoryRunStore(), Refusing(ConnectionFailed("no route")))
    journal.record(run_id, PromptPrepared(prompt_id="p", boot_marker=None))
    context = OfInstance(stop=CancelToken())
    runner = threading.Thread(target=execute, args=(context,))
    runner.start()
    try:
        away = journal.wait(run_id, lambda run: run.message == "no route; trying again", 10)
        assert away.status is RunStatus.QUEUED
        journal.record(run_id, CancelRequested())
        context.cancelled.cancel()
        aim = "no route; trying again, to cancel the prompt there"
        assert journal.wait(run_id, lambda run: run.message == aim, 10).message == aim
        context.instance_gone.cancel()
        ended = journal.wait(run_id, lambda run: run.is_finished, 20)
        assert ended.status is RunStatus.CANCELLED
        assert "Its instance was removed" in str(ended.error_message)
    finally:
        context.stop.cancel()
        runner.join(10)
    assert not runner.is_alive()


class RefusingAnew(Refusing):
    """A pool that raises a new error at each attempt, and notices when one is no longer in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.freed = threading.Event()

    @contextmanager
    def lease(self, _key: object, *, stop: CancelToken) -> Iterator[Any]:
        try:
            raise ConnectionFailed("no route")
        except ConnectionFailed as error:
            weakref.finalize(error, self.freed.set)
            raise
        yield


def test_nothing_of_a_failed_attempt_is_kept_until_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfyui_workflow.retry.WAITS_S", (60.0,))
    sessions = RefusingAnew()
    journal, run_id, execute = started(MemoryRunStore(), sessions)
    context = UnlimitedContext(stop=CancelToken())
    runner = threading.Thread(target=execute, args=(context,))
    runner.start()
    try:
        journal.wait(run_id, lambda run: run.message == "no route; trying again", 10)
        assert sessions.freed.wait(10)
    finally:
        context.stop.cancel()
        runner.join(10)


def test_a_run_that_lacked_only_its_end_leaves_no_hidden_picture(tmp_path: Path) -> None:
    journal, run_id, execute = started(MemoryRunStore(), Refusing(), output_dir=tmp_path)
    output = OutputFile(filename="websocket_5_00001.png", folder=FOLDER, node_id="5")
    journal.record(run_id, PromptPrepared(prompt_id="p", boot_marker=None))
    nodes = (NodeProgress(node_id="5", node_type="SaveImageWebsocket"),)
    journal.record(run_id, NodesPlanned(nodes=nodes))
    journal.record(run_id, PromptSucceeded(outputs=(output,)))
    run = journal.record(run_id, OutputsFetched(outputs=(replace(output, local_path="/o.png"),)))
    sent_file(run, "5", 1).write_bytes(b"")
    execute(UnlimitedContext(stop=CancelToken()))
    assert journal.get(run_id).status is RunStatus.COMPLETED
    assert list(tmp_path.iterdir()) == []


class LettingThroughWhatIsSmall:
    """A pool whose session always opens but transfers nothing: as in a network that loses large packets."""

    comfyui_port = 8188
    port_notice = None

    def __init__(self) -> None:
        self.attempts = 0

    @contextmanager
    def lease(self, _key: object, *, stop: CancelToken) -> Iterator[Any]:
        self.attempts += 1
        yield self

    def reach(self, _port: int | None, *, again: bool) -> bool:
        return True

    def refuse_if_broken(self) -> None:
        raise ConnectionFailed("no answer within 30 s")


def test_a_link_that_connects_and_brings_nothing_is_not_tried_for_ever() -> None:
    sessions = LettingThroughWhatIsSmall()
    journal, run_id, execute = started(MemoryRunStore(), sessions, patience_s=2.0)
    stop = CancelToken()
    last = threading.Timer(60, stop.cancel)
    last.start()
    execute(UnlimitedContext(stop=stop))
    last.cancel()
    ended = journal.get(run_id)
    assert (ended.status, ended.error_message) == (RunStatus.FAILED, "no answer within 30 s")
    assert 3 <= sessions.attempts <= 6


def test_only_what_comes_further_than_before_is_progress() -> None:
    seen: list[int] = []
    furthest = HighWaterMarks(lambda: seen.append(1))
    for name, done_bytes in (("a", 0), ("a", 5), ("a", 5), ("a", 3), ("b", 3), ("a", 6)):
        furthest.note(name, done_bytes)
    assert len(seen) == 3


def test_what_only_says_what_is_done_for_a_run_brings_it_no_further() -> None:
    journal, run_id, _ = started(MemoryRunStore(), Refusing())
    said = (
        PhaseEntered(phase=Phase.CONNECTING, message="Connecting"),
        NoticeAdded(message="look"),
        AttemptFailed(message="cut"),
        PromptPrepared(prompt_id="p", boot_marker=None),
        ExecutionStarted(),
        AttemptFailed(message="cut"),
        PromptSentAgain(process="p"),
        ExecutionStarted(),
        CancelRequested(),
    )
    advanced = []
    for event in said:
        before = journal.get(run_id)
        advanced.append(has_advanced(before, journal.record(run_id, event)))
    assert advanced == [False, False, False, True, True, False, False, False, False]


def test_to_wait_for_something_else_is_no_failing() -> None:
    now_s = 0.0
    backoff = Backoff(lambda: now_s)
    backoff.next_wait_s()
    now_s = 100.0
    backoff.exclude(90.0)
    assert backoff.failing_for_s() == 10.0
    backoff.reset()
    backoff.exclude(90.0)
    assert backoff.failing_for_s() == 0.0


def test_who_answers_is_asked_again_soon_and_is_given_no_more_time() -> None:
    now_s = 0.0
    backoff = Backoff(lambda: now_s)
    longest_s = max(backoff.next_wait_s() for _ in range(10))
    now_s = 100.0
    backoff.note_response()
    assert backoff.next_wait_s() < longest_s / 2
    assert backoff.failing_for_s() == 100.0
