"""Runs with parts: what a restart repairs, what is moved, and what follows from the end of each part."""

from dataclasses import replace
from pathlib import Path

import pytest

from comfyui_workflow.errors import RunConflict
from comfyui_workflow.instances.model import Instance, placement_of
from comfyui_workflow.runs.events import (
    CancelRequested,
    ExecutionStarted,
    InstanceChosen,
    PartAdded,
    PromptPrepared,
    PromptSucceeded,
    RunCancelled,
    RunCompleted,
    RunFailed,
)
from comfyui_workflow.runs.model import FileType, OutputFile, Run, RunStatus
from comfyui_workflow.runs.notification import RUN_EVENTS, WebhookOrder
from comfyui_workflow.runs.parts import Partial, PartsOrder, PartState
from comfyui_workflow.runs.upload_target import read_upload
from comfyui_workflow.services.parts import PartService, PartTools
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.stores.files.api_keys import ApiKeys
from comfyui_workflow.stores.journal import RunJournal
from comfyui_workflow.stores.memory import MemoryRunStore
from tests.runs.test_state_machine import GRAPH
from tests.scheduling.making import FakeDirectory, LockWatch, instance, request
from tests.services.test_batches import Idle

INSTANCES = [instance("a"), instance("b"), instance("c")]


class Made:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = MemoryRunStore()
        self.begin_again()

    def begin_again(self) -> None:
        """Creates the services again from the records, like a server that has just started."""
        keys = ApiKeys(self.directory / "keys")
        self.journal = RunJournal(self.store, api_keys=keys)
        self.executor = Idle(self.journal)
        self.service = RunService(self.journal, self.store, self.executor)
        tools = PartTools(
            journal=self.journal,
            store=self.store,
            service=self.service,
            executor=self.executor,
            directory=FakeDirectory(INSTANCES, LockWatch()),
        )
        self.parts = PartService(tools)
        self.parts.recover()
        self.service.resume()
        self.parts.start()

    def order(self, count: int = 2, partial: Partial = Partial.MOVE, **fields: object) -> Run:
        order = PartsOrder(count=count, partial=partial)
        return self.service.submit(request(graph=GRAPH, parts=order, **fields), api_key="key")

    def run(self, run: Run) -> Run:
        return self.journal.get(run.run_id)

    def children(self, run: Run) -> list[Run]:
        return [self.journal.get(part.run_id) for part in self.run(run).current_parts]

    def begin(self, part: Run, where: Instance = INSTANCES[0]) -> None:
        placement = placement_of(part.request, where, "the first")
        for event in (InstanceChosen(placement=placement), PromptPrepared(prompt_id="p", boot_marker=None)):
            self.journal.record(part.run_id, event)
        self.journal.record(part.run_id, ExecutionStarted())

    def complete(self, part: Run) -> None:
        self.begin(part)
        found = OutputFile(filename="a.png", file_type=FileType.IMAGE, local_path=f"/o/{part.run_id}.png")
        self.journal.record(part.run_id, PromptSucceeded(outputs=(found,)))
        self.journal.record(part.run_id, RunCompleted())

    def fail(self, part: Run, where: Instance = INSTANCES[0], code: str = "prompt_failed") -> None:
        self.begin(part, where)
        self.journal.record(part.run_id, RunFailed(code=code, message="it broke"))


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def test_parts_are_saved_with_their_run_and_only_they_are_started(made: Made) -> None:
    webhook = WebhookOrder(url="https://x", events=RUN_EVENTS, server_url="http://here")
    run = made.order(3, webhook=webhook, workflow_name="w")
    first, *others = made.children(run)
    assert made.executor.started == [first.run_id, *(each.run_id for each in others)]
    assert [part.request.seed_step for part in (first, *others)] == [0, 1, 2]
    assert {part.request.seed_series for part in (first, *others)} == {run.run_id}
    assert first.request.output_dir.endswith("/part_1")
    assert (first.request.webhook, first.request.upload, first.request.parts) == (None, None, None)
    assert first.request.workflow is run.request.workflow
    assert made.journal.api_key(others[0].run_id) == "key"
    assert made.store.latest_id() != run.run_id
    assert [each.run_id for each in made.service.underway().waiting] == [run.run_id]
    assert made.service.unfinished_count() == 1


def test_the_run_ends_with_its_last_part(made: Made) -> None:
    run = made.order()
    first, second = made.children(run)
    made.complete(second)
    assert made.run(run).status is RunStatus.EXECUTING
    made.complete(first)
    done = made.run(run)
    assert done.status is RunStatus.COMPLETED
    assert [(each.part, each.subfolder) for each in done.outputs] == [(0, "part_1"), (1, "part_2")]


def test_outputs_of_all_parts_are_uploaded_by_the_run(made: Made) -> None:
    run = made.order(upload=read_upload("s3://bucket/prefix").target)
    for part in made.children(run):
        made.complete(part)
    assert made.run(run).is_uploading
    assert made.executor.started[-1] == run.run_id
    assert made.run(run).placement is not None


def test_a_failed_part_moves_to_instances_where_it_has_not_failed(made: Made) -> None:
    run = made.order()
    first, _ = made.children(run)
    made.fail(first, INSTANCES[0])
    second = made.children(run)[0]
    assert second.run_id != first.run_id
    assert second.request.part is not None
    assert (second.request.part.without, second.request.seed_step) == (("a",), 0)
    assert made.run(run).notices == ("Part 1 of 2 (a): it broke. Another instance takes this part",)
    made.fail(second, INSTANCES[1])
    third = made.children(run)[0]
    assert third.request.part is not None
    assert third.request.part.without == ("a", "b")
    made.fail(third, INSTANCES[2])
    assert made.children(run)[0].run_id == third.run_id
    assert made.run(run).status is RunStatus.EXECUTING
    made.complete(made.children(run)[1])
    done = made.run(run)
    assert (done.status, done.error_code) == (RunStatus.FAILED, "prompt_failed")
    assert len(done.outputs) == 1


@pytest.mark.parametrize("code", ["invalid_inputs", "invalid_workflow", "record_damaged"])
def test_a_failure_that_every_instance_would_repeat_does_not_move(made: Made, code: str) -> None:
    run = made.order()
    first = made.children(run)[0]
    made.fail(first, code=code)
    assert made.children(run)[0].run_id == first.run_id


def test_a_retry_repeats_only_the_parts_that_failed(made: Made) -> None:
    run = made.order(partial=Partial.FAIL)
    first, second = made.children(run)
    made.complete(first)
    made.fail(second, code="connection_failed")
    assert made.run(run).status is RunStatus.FAILED
    made.service.retry(run.run_id)
    assert made.children(run)[1].status is RunStatus.QUEUED
    assert made.run(run).waits_for_parts
    assert made.executor.started[-1] == second.run_id
    made.complete(made.children(run)[1])
    assert made.run(run).status is RunStatus.COMPLETED


def test_all_parts_are_cancelled_with_the_run(made: Made) -> None:
    run = made.order()
    first, _ = made.children(run)
    made.complete(first)
    made.service.cancel(run.run_id)
    assert [part.status for part in made.children(run)] == [RunStatus.COMPLETED, RunStatus.CANCELLED]
    assert made.run(run).status is RunStatus.CANCELLED
    assert len(made.run(run).outputs) == 1
    with pytest.raises(RunConflict):
        made.service.cancel(run.run_id)


def test_the_priority_of_a_run_is_that_of_its_parts(made: Made) -> None:
    run = made.order()
    made.service.prioritize(run.run_id, 7)
    assert [part.priority for part in made.children(run)] == [7, 7]


def test_parts_whose_run_was_never_saved_are_cancelled_at_the_next_start(made: Made) -> None:
    run = made.order()
    parts = made.children(run)
    made.store = MemoryRunStore()
    made.store.add_all(parts)
    made.begin_again()
    assert [made.run(part).status for part in parts] == [RunStatus.CANCELLED] * 2
    assert made.executor.started == []


def test_a_part_that_was_never_saved_is_made_at_the_next_start(made: Made) -> None:
    run = made.order()
    first, second = made.children(run)
    made.store = MemoryRunStore()
    made.store.add_all([run, first])
    made.begin_again()
    again = made.run(second)
    assert replace(again.request, part=None) == replace(second.request, part=None)
    assert again.request.part == second.request.part
    assert set(made.executor.started) == {first.run_id, second.run_id}


def test_a_part_that_was_only_announced_is_made_at_the_next_start(made: Made) -> None:
    run = made.order()
    first, _ = made.children(run)
    made.parts.stop()
    made.fail(first)
    made.journal.record(run.run_id, PartAdded(part=PartState(run_id="comfyui_workflow_1_abc", number=0)))
    made.begin_again()
    moved = made.children(run)[0]
    assert moved.run_id == "comfyui_workflow_1_abc"
    assert moved.request.part is not None
    assert moved.request.part.without == ("a",)


def test_a_run_whose_parts_have_ended_is_completed_at_the_next_start(made: Made) -> None:
    run = made.order()
    made.parts.stop()
    for part in made.children(run):
        made.complete(part)
    assert made.run(run).status is RunStatus.EXECUTING
    made.begin_again()
    assert made.run(run).status is RunStatus.COMPLETED


@pytest.mark.parametrize("ending", [RunCancelled(), CancelRequested()])
def test_parts_of_a_cancelled_run_end_at_the_next_start(
    made: Made, ending: RunCancelled | CancelRequested
) -> None:
    run = made.order()
    made.parts.stop()
    made.journal.record(run.run_id, ending)
    made.begin_again()
    assert [part.status for part in made.children(run)] == [RunStatus.CANCELLED] * 2
    assert made.run(run).status is RunStatus.CANCELLED
