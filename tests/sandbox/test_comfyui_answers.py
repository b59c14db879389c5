"""HTTP responses of the sandbox, compared with those of recorded ComfyUIs."""

import pytest

from tests.sandbox.replay import Answered, Event, Replay, recording
from tests.sandbox.running_comfyui import RunningComfyUI

EXACT = [
    "0.33.0/01_success",
    "0.33.0/04_cached_rerun",
    "0.33.0/05_partly_cached",
    "0.33.0/10_jobs_and_cancel",
    "0.33.0/11_interrupt",
    "0.33.0/12_validation_errors",
    "0.33.0/13_execution_error",
    "0.33.0/26_history_and_jobs",
    "0.33.0/60_node_replacements",
    "0.33.0/61_dynamic_inputs",
    "0.8.0/01_success",
    "0.8.0/10_jobs_and_cancel",
    "0.8.0/11_interrupt",
    "0.8.0/12_validation_errors",
    "0.8.0/26_history_and_jobs",
    "0.3.64/01_success",
    "0.3.64/04_fully_cached_rerun",
    "0.3.64/05_partly_cached",
    "0.3.64/10_cancel_pending",
    "0.3.64/11_interrupt",
    "0.3.64/12_validation_errors",
    "0.3.64/13_execution_error_oom_blocker",
    "0.3.64/26_history_and_queue_shapes",
    "0.3.64/35_interrupt_after_first_output_and_cached_outputs_on_error",
]


@pytest.mark.parametrize("name", EXACT)
def test_answers_are_as_recorded(comfyui: RunningComfyUI, name: str) -> None:
    assert_same(Replay(comfyui, name).run().answered())


@pytest.mark.parametrize("name", ["0.33.0/31_origin", "0.3.64/31_origin_host_checks"])
def test_pages_of_other_origins_are_refused_as_recorded(comfyui: RunningComfyUI, name: str) -> None:
    events = [on_our_port(event, comfyui.port) for event in recording(name)]
    assert_same(Replay(comfyui, name, events).run().answered())


def on_our_port(event: Event, port: int) -> Event:
    headers = {name: value.replace("18189", str(port)) for name, value in event["req_headers"].items()}
    return {**event, "req_headers": headers}


def assert_same(answers: list[Answered]) -> None:
    assert answers
    for answer in answers:
        assert answer.replayed == answer.recorded, answer.request
