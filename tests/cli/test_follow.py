"""Following a run while the server is away, for a while or forever."""

import pytest

from comfyui_workflow.cli.follow import follow
from comfyui_workflow.client.documents import ProgressDocument
from comfyui_workflow.client.errors import ServerUnreachable
from comfyui_workflow.client.server import WorkflowServer
from comfyui_workflow.client.watch import AWAY_LIMIT_S
from tests.cli.canned_server import CannedServer
from tests.cli.documents import RUN_ID, raw_progress


class Clock:
    """Fake clock that advances only in `pause`."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def pause(self, _seconds: float) -> None:
        self.now_s += 100.0


class Heard:
    def __init__(self) -> None:
        self.statuses: list[str] = []

    def show(self, progress: ProgressDocument) -> None:
        self.statuses.append(progress.status)

    def show_trouble(self, sentence: str) -> None:
        self.statuses.append(sentence.partition(" ")[0])


def test_it_goes_on_when_the_server_is_back(canned: CannedServer) -> None:
    away = (503, b"")
    canned.will_answer(_answer("executing"), away, away, _answer("executing"), away, _answer("completed"))
    heard, clock = Heard(), Clock()
    with WorkflowServer(canned.url) as client:
        follow(client, RUN_ID, heard, pause=clock.pause, clock=clock)
    assert heard.statuses == ["executing", "The", "The", "executing", "The", "completed"]


def test_it_ends_when_the_server_is_away_for_too_long(canned: CannedServer) -> None:
    canned.will_answer((503, b""))
    heard, clock = Heard(), Clock()
    with WorkflowServer(canned.url) as client, pytest.raises(ServerUnreachable):
        follow(client, RUN_ID, heard, pause=clock.pause, clock=clock)
    assert clock.now_s > AWAY_LIMIT_S


def _answer(status: str) -> tuple[int, object]:
    return (200, {"success": True, "progress": raw_progress(status=status)})
