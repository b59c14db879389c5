"""The gate before submissions, while a ComfyUI is restarted on purpose."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import Stopped
from comfyui_workflow.execution.preparations import SubmissionGate


def session(port: int = 8188) -> Any:
    return SimpleNamespace(
        connection=SimpleNamespace(address=SimpleNamespace(label="root@gpu:22")), comfyui_port=port
    )


def test_no_prompt_is_submitted_while_the_gate_is_closed() -> None:
    gate, passed = SubmissionGate(), threading.Event()

    def submit() -> None:
        gate.wait_open(session(), CancelToken())
        passed.set()

    with gate.alone(session()):
        with gate.alone(session()):
            waiting = threading.Thread(target=submit)
            waiting.start()
            gate.wait_open(session(8189), CancelToken())  # another ComfyUI of the machine
        assert not passed.wait(0.05)
    waiting.join(10)
    assert passed.is_set()


def test_a_run_that_waits_there_can_be_cancelled() -> None:
    gate, stop = SubmissionGate(), CancelToken()
    with gate.alone(session()):
        threading.Timer(0.01, stop.cancel).start()
        with pytest.raises(Stopped):
            gate.wait_open(session(), stop)
