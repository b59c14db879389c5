"""Which prompts of our runs are explained by our data."""

from collections.abc import Callable
from pathlib import Path

import pytest

from comfyui_workflow.comfyui.queue import PromptMark
from comfyui_workflow.errors import DataTaken
from comfyui_workflow.execution.prompt_marks import PromptMarkCheck
from comfyui_workflow.runs.events import PromptPrepared, PromptSentAgain, RunCompleted
from comfyui_workflow.runs.model import Run, RunRequest, new_run_id
from comfyui_workflow.runs.target import target_of_record
from comfyui_workflow.stores.files.ownership import Ownership
from comfyui_workflow.stores.journal import RunJournal, now
from comfyui_workflow.stores.memory import MemoryRunStore
from comfyui_workflow.workflows.model import Workflow

BEFORE_S, AFTER_S = -60.0, 60.0
"""Beside the start of this process."""


class Case:
    def __init__(self, directory: Path) -> None:
        (directory / "server.lock").touch()
        self.earlier = Ownership(directory, directory / "server.lock")
        self.earlier.take()
        self.ours = Ownership(directory, directory / "server.lock")
        self.ours.take()
        self.journal = RunJournal(MemoryRunStore())
        self.judge = PromptMarkCheck(self.journal, self.ours)
        request = RunRequest(
            target=target_of_record("root@host"),
            workflow=Workflow(graph={}),
            workflow_name="w",
            output_dir="/nowhere",
            comfyui_port=1,
            comfyui_input_dir="",
            comfyui_output_dir="",
        )
        self.run = Run(run_id=new_run_id(now()), request=request, queue_time=now(), last_update=now())
        self.journal.add(self.run)

    def sent(self, process: str) -> None:
        event = PromptPrepared(prompt_id="p", boot_marker=None, process=process)
        self.journal.record(self.run.run_id, event)

    def mark(self, submission: int, process: str | None, sent_s: float) -> PromptMark:
        return PromptMark(
            prompt_id="p",
            correlation=f"{self.run.run_id}/{submission}",
            process=process,
            sent_at_s=self.ours.began_at_s + sent_s,
        )


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


EXPLAINED: dict[str, Callable[[Case], PromptMark]] = {
    "sent by this process": lambda case: case.mark(1, case.ours.token, AFTER_S),
    "sent by the process before, and recorded": lambda case: (
        case.sent(case.earlier.token) or case.mark(1, case.earlier.token, AFTER_S)  # type: ignore[func-returns-value]
    ),
    "sent by the process before, of which the record was lost": lambda case: case.mark(
        1, case.earlier.token, BEFORE_S
    ),
    "of a version that did not tell": lambda case: case.mark(7, None, AFTER_S),
    "of somebody else's run": lambda case: PromptMark(
        prompt_id="p", correlation="x/1", process="y", sent_at_s=1
    ),
}
UNEXPLAINED: dict[str, Callable[[Case], PromptMark]] = {
    "sent by a process that was never here": lambda case: case.mark(1, "stranger", BEFORE_S),
    "sent by a process before after this one began": lambda case: case.mark(1, case.earlier.token, AFTER_S),
    "sent by both": lambda case: (
        case.sent(case.ours.token) or case.mark(1, case.earlier.token, AFTER_S)  # type: ignore[func-returns-value]
    ),
}


@pytest.mark.parametrize("name", EXPLAINED)
def test_what_our_data_explain_is_no_other_server(case: Case, name: str) -> None:
    case.judge.judge(EXPLAINED[name](case))
    assert case.ours.lost is None


@pytest.mark.parametrize("name", UNEXPLAINED)
def test_what_they_do_not_explain_stops_this_server(case: Case, name: str) -> None:
    with pytest.raises(DataTaken, match="which another server has sent"):
        case.judge.judge(UNEXPLAINED[name](case))
    with pytest.raises(DataTaken):
        case.ours.check()


def test_a_copy_of_what_was_sent_again_after_a_restart_is_explained(case: Case) -> None:
    case.sent(case.earlier.token)
    case.journal.record(case.run.run_id, PromptSentAgain(process=case.ours.token))
    case.judge.judge(case.mark(1, case.earlier.token, AFTER_S))
    case.journal.record(case.run.run_id, RunCompleted())
    case.judge.judge(case.mark(1, case.earlier.token, AFTER_S))


def test_where_the_list_of_processes_was_lost_the_time_decides(case: Case) -> None:
    case.ours.are_all_known = False
    case.judge.judge(case.mark(1, "forgotten", BEFORE_S))
    with pytest.raises(DataTaken):
        case.judge.judge(case.mark(1, "stranger", AFTER_S))
