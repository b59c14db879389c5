"""Tests of duration estimates: same graph, same instance, and only prompts that were really executed."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from comfyui_workflow.app import create_server
from comfyui_workflow.runs import events
from comfyui_workflow.runs.model import FileType, OutputFile, Run, new_run_id
from comfyui_workflow.runs.state_machine import apply
from comfyui_workflow.runs.summary import RunSummary, summary_of
from comfyui_workflow.runs.target import target_of_record
from comfyui_workflow.services import duration_estimates
from comfyui_workflow.services.duration_estimates import DurationEstimates
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.settings import load_settings
from comfyui_workflow.stores.journal import RunJournal
from comfyui_workflow.stores.memory import MemoryRunStore
from comfyui_workflow.workflows.seed_mode import SeedMode
from comfyui_workflow.workflows.signature import signature
from tests.runs.test_state_machine import AT, GRAPH, new_run
from tests.runs.test_summary import PLACEMENT
from tests.scheduling.making import request
from tests.services.test_batches import Idle

SSH = "ssh root@192.0.2.1"


def waiting(number: int = 0, ssh_connection: str = SSH, signature: str | None = "s") -> Run:
    run = new_run()
    return replace(
        run,
        run_id=new_run_id(AT + timedelta(seconds=number)),
        request=replace(run.request, target=target_of_record(ssh_connection)),
        graph_signature=signature,
    )


def completed(run: Run, execution_s: float, *happened: events.Event) -> Run:
    made = OutputFile(filename="a.png", node_id="3", local_path="/tmp/a.png")
    for event in (
        *happened,
        events.ExecutionStarted(),
        events.ExecutionEnded(execution_s=execution_s),
        events.PromptSucceeded(outputs=(made,)),
        events.RunCompleted(),
    ):
        run = apply(run, event, AT)
    return run


class Learned:
    def __init__(self) -> None:
        self.journal = RunJournal(MemoryRunStore())
        self.expectations = DurationEstimates(self.journal)

    def learn(self, *runs: Run) -> None:
        self.expectations.learn(summary_of(run) for run in runs)

    def of(self, run: Run) -> float | None:
        return self.expectations.expected_s(summary_of(run))


@pytest.fixture
def learned() -> Learned:
    return Learned()


def test_the_median_of_the_last_five(learned: Learned) -> None:
    assert learned.of(waiting()) is None
    learned.learn(completed(waiting(), 900.0))
    assert learned.of(waiting()) == 900.0
    learned.learn(*(completed(waiting(), seconds) for seconds in (1.0, 2.0, 30.0, 4.0, 5.0)))
    assert learned.of(waiting()) == 4.0


def test_of_many_kinds_of_graphs_those_that_ran_last_are_known(
    learned: Learned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duration_estimates, "MOST_KNOWN", 2)
    for kind in ("first", "second", "first", "third"):
        learned.learn(completed(waiting(signature=kind), 3.0))
    known = [learned.of(waiting(signature=kind)) for kind in ("first", "second", "third")]
    assert known == [3.0, None, 3.0]


def test_only_of_the_same_graph_at_the_same_place(learned: Learned) -> None:
    learned.learn(completed(waiting(), 3.0))
    assert learned.of(waiting(signature="another")) is None
    assert learned.of(waiting(signature=None)) is None
    assert learned.of(waiting(ssh_connection="ssh root@192.0.2.2")) is None
    assert learned.of(replace(waiting(), placement=PLACEMENT)) is None


def test_a_run_for_any_knows_once_it_has_its_instance(learned: Learned) -> None:
    asked = waiting(ssh_connection="any")
    learned.learn(completed(replace(asked, placement=PLACEMENT), 3.0))
    assert learned.of(asked) is None
    assert learned.of(replace(asked, placement=PLACEMENT)) == 3.0
    assert learned.of(replace(waiting(), placement=PLACEMENT)) == 3.0


def test_what_took_no_time_or_counts_twice_teaches_nothing(learned: Learned) -> None:
    everything_cached = events.NodesCached(node_ids=frozenset({"1", "2", "3"}))
    outputs_cached = events.NodesCached(node_ids=frozenset({"3"}))
    lost = (events.ExecutionStarted(), events.PromptVanished(message="restarted"))
    for run in (
        completed(waiting(), 0.0),
        completed(waiting(), 9.0, everything_cached),
        completed(waiting(), 9.0, outputs_cached),
        completed(waiting(), 9.0, *lost),
        apply(waiting(), events.RunFailed(code="x", message="x"), AT),
    ):
        learned.learn(run)
    assert learned.of(waiting()) is None
    learned.learn(completed(waiting(), 8.0, events.NodesCached(node_ids=frozenset({"1", "2"}))))
    assert learned.of(waiting()) == 8.0


def test_the_journal_teaches_and_a_finished_run_expects_nothing(learned: Learned) -> None:
    run = waiting()
    learned.journal.add(run)
    learned.journal.record(run.run_id, events.ExecutionStarted())
    learned.journal.record(run.run_id, events.ExecutionEnded(execution_s=7.0))
    learned.journal.record(run.run_id, events.PromptSucceeded(outputs=()))
    assert learned.of(waiting(1)) is None
    learned.journal.record(run.run_id, events.RunCompleted())
    assert learned.of(waiting(1)) == 7.0
    assert learned.of(learned.journal.get(run.run_id)) is None


def test_a_line_tells_of_pictures_that_are_here_and_of_the_node_that_runs() -> None:
    def output(number: int, **fields: object) -> OutputFile:
        known: dict[str, object] = {"file_type": FileType.IMAGE, "local_path": "/tmp/x", **fields}
        return OutputFile(filename=f"{number}.png", **known)  # type: ignore[arg-type]

    outputs = (
        output(0, local_path=None),
        output(1),
        output(2, file_type=FileType.VIDEO),
        *(output(number) for number in range(3, 8)),
    )
    line: RunSummary = summary_of(replace(new_run(), outputs=outputs))
    assert line.pictures == (1, 3, 4, 5)
    started = apply(new_run(), events.NodeStarted(node_id="2"), AT)
    moved = apply(started, events.NodesAdvanced(steps={"2": events.NodeStep(value=45, maximum=100)}), AT)
    line = summary_of(moved)
    assert (line.current_node_progress, line.current_node_message) == (45.0, "Step 45/100")


def test_a_graph_that_may_still_change_has_no_signature_yet() -> None:
    service = RunService(journal := RunJournal(MemoryRunStore()), MemoryRunStore(), Idle(journal))

    def signature_of(**fields: object) -> str | None:
        return service.submit(request(graph=GRAPH, **fields)).graph_signature

    assert signature_of() == signature_of(seed_mode=SeedMode.RANDOMIZE) == signature(GRAPH)
    assert signature_of(inputs={"1.image": "b.png"}) == signature(GRAPH)
    assert signature_of(inputs={"2.steps": 30}) is None
    assert signature_of(seed_mode=SeedMode.CONTROL, editor_file={"nodes": []}) is None
    prepared = {**GRAPH, "2": {"class_type": "ImageBlur", "inputs": {"image": ["1", 0]}}}
    run = apply(new_run(), events.GraphPrepared(graph=prepared), AT)
    assert run.graph_signature == signature(prepared) != signature(GRAPH)


def test_it_is_known_again_after_a_restart(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path / "data", state_file=tmp_path / "state.json")
    run = waiting()
    for expected_s in (None, 7.0):
        server = create_server(settings)
        server.start()
        try:
            assert server.parts.service.expected_s(waiting(1)) == expected_s
            if expected_s is None:
                server.base.store.add(run)
                server.base.store.update(
                    run.run_id, lambda each: completed(each, 7.0), events.Durability.MUST
                )
        finally:
            server.stop()
