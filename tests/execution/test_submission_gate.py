"""The gate that keeps prompts away from a ComfyUI that is about to be restarted."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import Stopped
from comfyui_workflow.execution.preparations import SubmissionGate

WAIT_S = 10.0


def session(host: str) -> Any:
    address = SimpleNamespace(label=host, host=host)
    return SimpleNamespace(connection=SimpleNamespace(address=address), comfyui_port=8188, address=address)


def test_prompts_wait_while_one_is_alone_and_others_do_not() -> None:
    gate, there, stop = SubmissionGate(), session("a"), CancelToken()
    entered = threading.Event()

    def submit() -> None:
        with gate.submitting(there, stop):
            entered.set()

    thread = threading.Thread(target=submit)
    with gate.alone(there, stop):
        thread.start()
        with gate.submitting(session("b"), stop):
            assert not entered.is_set()
    assert entered.wait(WAIT_S)
    thread.join(WAIT_S)


def test_nobody_is_alone_while_a_prompt_is_being_submitted() -> None:
    gate, there, stop = SubmissionGate(), session("a"), CancelToken()
    alone = threading.Event()

    def restart() -> None:
        with gate.alone(there, stop):
            alone.set()

    thread = threading.Thread(target=restart)
    with gate.submitting(there, stop):
        thread.start()
        assert not alone.is_set()
    assert alone.wait(WAIT_S)
    thread.join(WAIT_S)


def test_a_wait_ends_with_its_token_and_leaves_the_gate_open() -> None:
    gate, there, stop, cancelled = SubmissionGate(), session("a"), CancelToken(), CancelToken()
    cancelled.cancel("the run is cancelled")
    with gate.alone(there, stop), pytest.raises(Stopped), gate.submitting(there, cancelled):
        pass
    with gate.submitting(there, stop), pytest.raises(Stopped), gate.alone(there, cancelled):
        pass
    with gate.submitting(there, stop), gate.submitting(there, stop):
        pass
    with gate.alone(there, stop):
        pass
