"""Instances, runs and a fleet without machines, for tests of scheduling decisions."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from comfyui_workflow.instances.model import Instance
from comfyui_workflow.instances.state import InstanceState, Prompts, Reachability
from comfyui_workflow.runs.events import Durability, Event, InstanceChosen, InstanceLeft, RunCompleted
from comfyui_workflow.runs.model import Run, RunRequest, new_run_id
from comfyui_workflow.runs.summary import RunSummary
from comfyui_workflow.runs.target import target_of_record
from comfyui_workflow.scheduling.dispatcher import Dispatcher, DispatchOptions
from comfyui_workflow.scheduling.executor import ExecutionContext
from comfyui_workflow.stores.base import Change
from comfyui_workflow.stores.journal import RunJournal, now
from comfyui_workflow.stores.memory import MemoryRunStore
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.model import Workflow

READY = InstanceState(reachability=Reachability.READY, prompts=Prompts())
AWAY = InstanceState(reachability=Reachability.UNREACHABLE, trouble="no route to host")
LIMIT_S = 10.0
LOOK_S = 0.01


def instance(name: str, **fields: object) -> Instance:
    known: dict[str, object] = {
        "id": name,
        "name": name,
        "ssh_connection": f"ssh root@{name}.example",
        "comfyui_port": 8188,
        "comfyui_input_dir": "/in",
        "comfyui_output_dir": "/out",
    }
    return Instance(**{**known, **fields})  # type: ignore[arg-type]


def request(
    ssh_connection: str = "any",
    instance_id: str | None = None,
    graph: Graph | None = None,
    editor_file: Mapping[str, Any] | None = None,
    **fields: object,
) -> RunRequest:
    known: dict[str, object] = {
        "target": target_of_record(ssh_connection, instance_id),
        "workflow_name": "w",
        "output_dir": "/nowhere",
        "comfyui_port": 8188,
        "comfyui_input_dir": "/mine/in",
        "comfyui_output_dir": "/mine/out",
    }
    workflow = Workflow(graph=graph or {}, editor_file=editor_file)
    return RunRequest(**{**known, "workflow": workflow, **fields})  # type: ignore[arg-type]


class LockWatch:
    """Records accesses to data that may be on disk while the dispatcher's lock is held."""

    def __init__(self) -> None:
        self.is_held: Callable[[], bool] = lambda: False
        self.offences: list[str] = []

    def look(self, what: str) -> None:
        if self.is_held():
            self.offences.append(what)


class SlowStore(MemoryRunStore):
    """A store that may be on a slow disk."""

    def __init__(self) -> None:
        super().__init__()
        self.lock_watch = LockWatch()

    def get(self, run_id: str) -> Run | None:
        self.lock_watch.look("a record is read")
        return super().get(run_id)

    def update(self, run_id: str, change: Change, saving: Durability = Durability.STEP) -> Run:
        self.lock_watch.look("a record is written")
        return super().update(run_id, change, saving)

    def of_batch(self, batch_id: str) -> list[RunSummary]:
        self.lock_watch.look("a batch is read")
        return super().of_batch(batch_id)


@dataclass
class FakeDirectory:
    instances: list[Instance]
    lock_watch: LockWatch

    def all(self) -> list[Instance]:
        self.lock_watch.look("the directory is read")
        return list(self.instances)

    def get(self, id_or_name: str) -> Instance | None:
        self.lock_watch.look("the directory is read")
        return next((each for each in self.instances if id_or_name in (each.id, each.name)), None)


@dataclass
class FakeMonitors:
    states: dict[str, InstanceState]
    wanted: set[str] = field(default_factory=set)
    believes_reports: bool = True

    def state(self, instance_id: str) -> InstanceState:
        return self.states.get(instance_id, InstanceState())

    def acquire(self, instance: Instance) -> None:
        self.wanted.add(instance.id)

    def report(self, instance_id: str, error: Exception) -> None:
        if not self.believes_reports:
            return
        self.states[instance_id] = replace(AWAY, trouble=str(error))


class Fleet:
    """The test executes the runs: `executing` returns the runs that are executed, `submit` and `finish` take
    a run to its next step, and `fail` raises an error in it."""

    def __init__(self, *instances: Instance, store: SlowStore | None = None, **options: object) -> None:
        self.store = store or SlowStore()
        self.lock_watch = self.store.lock_watch
        self.directory = FakeDirectory(list(instances), self.lock_watch)
        self.monitors = FakeMonitors({each.id: READY for each in instances})
        self.journal = RunJournal(self.store)
        self.dispatcher = Dispatcher(
            journal=self.journal,
            directory=self.directory,
            monitors=self.monitors,
            execute=self._execute,
            options=DispatchOptions(**options),  # type: ignore[arg-type]
        )
        self.lock_watch.is_held = self.dispatcher._changed._is_owned  # type: ignore[attr-defined]
        self.before_request: Callable[[str], object] = lambda _: None
        self.before_release: Callable[[], object] = lambda: None
        self.submitted: list[str] = []
        self._changed = threading.Condition()
        self.times_started: Counter[str] = Counter()
        self._contexts: dict[str, ExecutionContext] = {}
        self._wishes: dict[str, list[object]] = {}

    def submit(self, *requests: RunRequest) -> list[str]:
        runs = [self.add(each) for each in requests]
        for run in runs:
            self.dispatcher.start(run.run_id)
        return [run.run_id for run in runs]

    def add(self, asked: RunRequest) -> Run:
        at = now()
        run = Run(
            run_id=new_run_id(at),
            request=asked,
            queue_time=at,
            last_update=at,
            priority=asked.priority,
        )
        self.journal.add(run)
        return run

    def until(self, condition: Callable[[], bool]) -> None:
        """Waits for the condition. It polls, because records and states do not notify."""
        deadline_s = time.monotonic() + LIMIT_S
        with self._changed:
            while not condition():
                assert time.monotonic() < deadline_s, self.story()
                self._changed.wait(LOOK_S)

    def executing(self) -> set[str]:
        return set(self._contexts)

    def where(self, run_id: str) -> str | None:
        placement = self.journal.get(run_id).placement
        return placement.name if placement else None

    def finish(self, run_id: str) -> None:
        self._wish(run_id, "finish")

    def context(self, run_id: str) -> ExecutionContext:
        return self._contexts[run_id]

    def is_instance_gone(self, run_id: str) -> bool:
        return self._contexts[run_id].is_instance_gone(self.journal.get(run_id))

    def release_slot(self, run_id: str) -> None:
        self._contexts[run_id].release_slot()

    def end(self, run_id: str, ending: Event) -> None:
        """Ends the run with an event; then, in the run's own thread, calls `before_release`."""
        self._wish(run_id, ending)

    def fail(self, run_id: str, error: Exception) -> None:
        self._wish(run_id, error)

    def story(self) -> str:
        return "\n".join(f"{run.run_id} {run.placement} {run.message}" for run in self.store.unfinished())

    def close(self) -> None:
        with self._changed:
            self._changed.notify_all()
        assert self.dispatcher.stop(LIMIT_S)
        assert self.lock_watch.offences == []

    def _wish(self, run_id: str, wish: object) -> None:
        with self._changed:
            self._wishes.setdefault(run_id, []).append(wish)
            self._changed.notify_all()

    def _execute(self, run_id: str, context: ExecutionContext) -> None:
        run = self.journal.get(run_id)
        placement = context.placement(run)
        if placement is not None:
            self.journal.record(run_id, InstanceChosen(placement=placement))
        try:
            self.before_request(run_id)
            with context.submission_slot(context.stop):
                self.submitted.append(run_id)
            self._hold(run_id, context)
        except Exception as error:  # noqa: BLE001 - as the runner does
            run = self.journal.get(run_id)
            reason = context.reason_to_leave(run, error, failing_for_s=1000)
            if reason is not None:
                self.journal.record(run_id, InstanceLeft(message=reason))

    def _hold(self, run_id: str, context: ExecutionContext) -> None:
        with self._changed:
            self._contexts[run_id] = context
            self.times_started[run_id] += 1
            self._changed.notify_all()
            try:
                while not (wishes := self._wishes.get(run_id)) and not context.stop.is_set:
                    self._changed.wait(0.05)
            finally:
                del self._contexts[run_id]
        if wishes:
            wish = wishes.pop(0)
            if isinstance(wish, Exception):
                raise wish
            if isinstance(wish, Event):
                self.journal.record(run_id, wish)
                self.before_release()
                return
            self.journal.record(run_id, RunCompleted())


@contextmanager
def fleet_of(*instances: Instance, store: SlowStore | None = None, **options: object) -> Iterator[Fleet]:
    fleet = Fleet(*instances, store=store, **options)
    try:
        yield fleet
    finally:
        fleet.close()
