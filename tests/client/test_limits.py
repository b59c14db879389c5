"""Any program may answer at the URL of a server: every request ends within its limits."""

import pytest

from comfyui_workflow.client import calls
from comfyui_workflow.client.calls import Calls
from comfyui_workflow.client.errors import ServerUnreachable
from tests import hostile
from tests.hostile import Attack, HostileComfyUI

TOO_MUCH = "more than 1 MB in a response|does not end in time"
"""Either limit may be reached first, depending on the speed of the machine."""


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (hostile.flood(1_000_000_000), TOO_MUCH),
        (hostile.bomb(1_000_000_000), TOO_MUCH),
        (hostile.drip(), "does not end in time"),
        (hostile.continue_for_ever, "does not end in time"),
    ],
    ids=["flood", "bomb", "drip", "100 Continue"],
)
def test_an_answer_without_end_is_left(attack: Attack, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MOST_ANSWER_BYTES", 1024 * 1024)
    monkeypatch.setattr(calls, "TRANSFER_S", 1.0)
    with HostileComfyUI({"/list": attack}) as there, pytest.raises(ServerUnreachable, match=words):
        Calls(there.url, None).ask("GET", "/list", timeout_s=0.5)


def test_a_file_that_drips_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "TRANSFER_S", 1.0)
    with (
        HostileComfyUI({"/file": hostile.drip()}) as there,
        Calls(there.url, None).stream("/file") as pieces,
        pytest.raises(ServerUnreachable, match="end"),
    ):
        list(pieces)
