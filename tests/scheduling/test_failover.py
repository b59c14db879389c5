"""The rules for a run to leave its instance."""

import pytest

from comfyui_workflow.errors import (
    AuthenticationFailed,
    ComfyUIUnavailable,
    ConnectionFailed,
    FileRefused,
    InstanceBroken,
    InvalidGraph,
    PromptCrashed,
    PromptRefused,
    RemoteFileError,
    StoreError,
    WorkflowError,
)
from comfyui_workflow.runs import events
from comfyui_workflow.runs.model import Run
from comfyui_workflow.scheduling.failover import may_run_again, should_leave
from tests.runs.test_state_machine import after, new_run

FRESH = new_run()
SUBMITTED = after(FRESH, events.PromptPrepared(prompt_id="p", boot_marker=None))
ACCEPTED = after(SUBMITTED, events.PromptAccepted(prompt_id="p"))
RUNNING = after(ACCEPTED, events.ExecutionStarted())
FINISHED = after(RUNNING, events.PromptSucceeded(outputs=()))


def lasting(error: WorkflowError) -> WorkflowError:
    error.is_transient = False
    return error


@pytest.mark.parametrize(
    ("run", "error", "failing_for_s", "is_another_ready", "leaves"),
    [
        (FRESH, ConnectionFailed("x"), 0, False, True),
        (FRESH, AuthenticationFailed("x"), 0, False, True),
        (FRESH, InvalidGraph("x"), 0, False, True),
        (FRESH, RemoteFileError("x"), 0, False, True),
        (FRESH, FileRefused("a file of ours"), 0, True, False),
        (FRESH, StoreError("our disk"), 999, True, False),
        (FRESH, ValueError("a bug of ours"), 999, True, False),
        (SUBMITTED, PromptRefused("x"), 0, False, True),
        (ACCEPTED, PromptRefused("x"), 0, True, False),
        (SUBMITTED, ConnectionFailed("x"), 99, True, False),
        (SUBMITTED, ConnectionFailed("x"), 100, True, True),
        (RUNNING, ComfyUIUnavailable("x"), 100, True, True),
        (RUNNING, ComfyUIUnavailable("x"), 9999, False, False),
        (RUNNING, AuthenticationFailed("x"), 9999, True, False),
        (RUNNING, InstanceBroken("x"), 0, True, True),
        (RUNNING, InstanceBroken("x"), 0, False, False),
        (SUBMITTED, PromptCrashed("x"), 99, True, False),
        (SUBMITTED, lasting(PromptCrashed("x")), 99, True, True),
        (SUBMITTED, lasting(PromptCrashed("x")), 99, False, False),
        (FINISHED, ConnectionFailed("x"), 999, True, False),
        (FINISHED, ConnectionFailed("x"), 1000, True, True),
        (FINISHED, ConnectionFailed("x"), 1000, False, False),
    ],
)
def test_who_leaves(
    run: Run, error: Exception, failing_for_s: float, is_another_ready: bool, leaves: bool
) -> None:
    found = should_leave(run, error, failing_for_s, move_after_s=100, is_another_ready=is_another_ready)
    assert found is leaves


def test_what_was_running_when_its_machine_died_runs_again_so_many_times() -> None:
    assert may_run_again(ACCEPTED, 0)
    assert not may_run_again(RUNNING, 0)
    assert may_run_again(RUNNING, 1)
    left = after(RUNNING, events.InstanceLeft(message="died"))
    again = after(left, events.PromptPrepared(prompt_id="q", boot_marker=None), events.ExecutionStarted())
    assert not may_run_again(again, 1)


def test_a_prompt_that_costs_credits_runs_nowhere_else_once_it_may_have_run() -> None:
    paid = events.PartnerNodesFound(node_ids=("1",))
    assert may_run_again(after(FRESH, paid), 1)
    assert not may_run_again(after(SUBMITTED, paid), 1)
