"""The runner between an instance that refuses and a disk that is full."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from comfyui_workflow.errors import AuthenticationFailed, StoreError
from comfyui_workflow.executors import FreeTurn
from comfyui_workflow.journal import RunJournal, now
from comfyui_workflow.live import LiveView
from comfyui_workflow.runner import Runner, RunnerOptions
from comfyui_workflow.runs.events import Saving
from comfyui_workflow.runs.model import Run, RunRequest, RunStatus, new_workflow_id
from comfyui_workflow.stores import Change
from comfyui_workflow.stores.memory import MemoryStore


class FullStore(MemoryStore):
    """Takes nothing that must be saved, for the first `refusals` times."""

    def __init__(self, refusals: int) -> None:
        super().__init__()
        self._left = refusals

    def update(self, workflow_id: str, change: Change, saving: Saving = Saving.STEP) -> Run:
        if saving is Saving.MUST and self._left:
            self._left -= 1
            raise StoreError("No space left on device")
        return super().update(workflow_id, change, saving)


class Refusing:
    """A pool whose instance accepts no key."""

    def __init__(self) -> None:
        self.attempts = 0

    @contextmanager
    def lease(self, _key: object, *, should_stop: Callable[[], bool]) -> Iterator[Any]:
        self.attempts += 1
        raise AuthenticationFailed("no key is accepted")
        yield


def started(
    store: MemoryStore, links: Refusing
) -> tuple[RunJournal, str, Callable[[Callable[[], bool]], None]]:
    journal = RunJournal(store)
    request = RunRequest(
        ssh_connection="root@host",
        graph={},
        workflow_name="w",
        output_dir="/nowhere",
        comfyui_port=1,
        comfyui_input_dir="",
        comfyui_output_dir="",
    )
    run = Run(workflow_id=new_workflow_id(now()), request=request, queue_time=now(), last_update=now())
    journal.add(run)
    runner = Runner(journal, links, RunnerOptions(), LiveView())  # type: ignore[arg-type]
    return (
        journal,
        run.workflow_id,
        lambda should_stop: runner.execute(run.workflow_id, FreeTurn(should_stop=should_stop)),
    )


def test_an_end_that_cannot_be_saved_yet_is_saved_later() -> None:
    links = Refusing()
    journal, workflow_id, execute = started(FullStore(refusals=1), links)
    execute(lambda: False)
    assert journal.get(workflow_id).status is RunStatus.FAILED
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
