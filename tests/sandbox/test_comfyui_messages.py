"""Websocket messages of the sandbox, compared with those of recorded ComfyUIs: types, order, keys,
values."""

from typing import Any

import pytest

from tests.sandbox.replay import Replay
from tests.sandbox.running_comfyui import RunningComfyUI

ALL_IN_ORDER = [
    "0.33.0/01_success",
    "0.33.0/04_cached_rerun",
    "0.33.0/05_partly_cached",
    "0.8.0/01_success",
    "0.3.64/01_success",
    "0.3.64/02_previews_legacy_binary1",
    "0.3.64/03_previews_metadata_binary4",
    "0.3.64/04_fully_cached_rerun",
    "0.3.64/05_partly_cached",
]
PREVIEWS_OF_ONE_PROMPT = [
    "0.33.0/02_previews_for_one_prompt",
    "0.33.0/03_previews_metadata",
    "0.8.0/02_previews_for_one_prompt",
]
WITHOUT_STATUS = [
    ("0.33.0/10_jobs_and_cancel", "A"),
    ("0.33.0/10_jobs_and_cancel", "other"),
    ("0.33.0/11_interrupt", "A"),
    ("0.33.0/13_execution_error", "A"),
    ("0.33.0/60_node_replacements", "A"),
    ("0.33.0/61_dynamic_inputs", "A"),
    ("0.8.0/10_jobs_and_cancel", "A"),
    ("0.8.0/11_interrupt", "A"),
    ("0.3.64/10_cancel_pending", "A"),
    ("0.3.64/10_cancel_pending", "other"),
    ("0.3.64/11_interrupt", "A"),
    ("0.3.64/13_execution_error_oom_blocker", "A"),
    ("0.3.41/50_old_2025-06-20", "A"),
    ("0.3.64/35_interrupt_after_first_output_and_cached_outputs_on_error", "A"),
]


@pytest.mark.parametrize("name", ALL_IN_ORDER)
def test_every_frame_is_as_recorded(comfyui: RunningComfyUI, name: str) -> None:
    heard = Replay(comfyui, name).run().heard("A")
    assert heard.replayed == heard.recorded


@pytest.mark.parametrize("name", PREVIEWS_OF_ONE_PROMPT)
def test_a_prompt_turns_its_own_previews_on(without_previews: RunningComfyUI, name: str) -> None:
    heard = Replay(without_previews, name).run().heard("A")
    assert heard.replayed == heard.recorded


@pytest.mark.parametrize(("name", "socket"), WITHOUT_STATUS)
def test_every_frame_but_status_is_as_recorded(comfyui: RunningComfyUI, name: str, socket: str) -> None:
    """`status` messages are caused by requests, so their position between messages of the worker is
    random."""
    heard = Replay(comfyui, name).run().heard(socket)
    assert [one for one in heard.replayed if not is_status(one)] == [
        one for one in heard.recorded if not is_status(one)
    ]
    assert sum(map(is_status, heard.replayed)) == sum(map(is_status, heard.recorded))


def is_status(message: Any) -> bool:
    return bool(message.get("type") == "status")
