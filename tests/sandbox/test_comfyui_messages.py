"""Websocket messages of the sandbox, compared with those of a recorded ComfyUI 0.3.64: types, order, keys,
values."""

from typing import Any

import pytest

from tests.sandbox.replay import Replay, recording
from tests.sandbox.running_comfyui import RunningComfyUI

ALL_IN_ORDER = [
    "01_success",
    "02_previews_legacy_binary1",
    "03_previews_metadata_binary4",
    "04_fully_cached_rerun",
    "05_partly_cached",
]
WITHOUT_STATUS = [
    ("10_cancel_pending", "A"),
    ("10_cancel_pending", "other"),
    ("11_interrupt", "A"),
    ("13_execution_error_oom_blocker", "A"),
    ("50_old_2025-06-20", "A"),
    ("35_interrupt_after_first_output_and_cached_outputs_on_error", "A"),
]


@pytest.mark.parametrize("name", ALL_IN_ORDER)
def test_every_frame_is_as_recorded(comfyui: RunningComfyUI, name: str) -> None:
    heard = Replay(comfyui, recording(name)).run().heard("A")
    assert heard.replayed == heard.recorded


@pytest.mark.parametrize(("name", "socket"), WITHOUT_STATUS)
def test_every_frame_but_status_is_as_recorded(comfyui: RunningComfyUI, name: str, socket: str) -> None:
    """`status` messages are caused by requests, so their position between messages of the worker is
    random."""
    comfyui.faults(version="old" if "_old_" in name else "new")
    heard = Replay(comfyui, recording(name)).run().heard(socket)
    assert [one for one in heard.replayed if not is_status(one)] == [
        one for one in heard.recorded if not is_status(one)
    ]
    assert sum(map(is_status, heard.replayed)) == sum(map(is_status, heard.recorded))


def is_status(message: Any) -> bool:
    return bool(message.get("type") == "status")
