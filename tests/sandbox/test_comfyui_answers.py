"""HTTP responses of the sandbox, compared with those of a recorded ComfyUI 0.3.64."""

import pytest

from tests.sandbox.replay import Answered, Event, Replay, recording
from tests.sandbox.running_comfyui import RunningComfyUI

EXACT = [
    "01_success",
    "04_fully_cached_rerun",
    "05_partly_cached",
    "10_cancel_pending",
    "11_interrupt",
    "12_validation_errors",
    "13_execution_error_oom_blocker",
    "26_history_and_queue_shapes",
    "35_interrupt_after_first_output_and_cached_outputs_on_error",
]


@pytest.mark.parametrize("name", EXACT)
def test_answers_are_as_recorded(comfyui: RunningComfyUI, name: str) -> None:
    assert_same(Replay(comfyui, recording(name)).run().answered())


def test_pages_of_other_origins_are_refused_as_recorded(comfyui: RunningComfyUI) -> None:
    events = recording("31_origin_host_checks")
    assert_same(Replay(comfyui, [on_our_port(event, comfyui.port) for event in events]).run().answered())


def on_our_port(event: Event, port: int) -> Event:
    headers = {name: value.replace("18189", str(port)) for name, value in event["req_headers"].items()}
    return {**event, "req_headers": headers}


def assert_same(answers: list[Answered]) -> None:
    assert answers
    for answer in answers:
        assert answer.replayed == answer.recorded, answer.request
