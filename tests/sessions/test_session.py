"""Tests of the server id, the client id and the caches of a session."""

from pathlib import Path
from typing import Any, cast

import pytest

from comfyui_workflow.errors import StoreError
from comfyui_workflow.sessions import session as session_module
from comfyui_workflow.sessions.session import ComfyUISession, LargeDefinitions, server_id


def test_the_name_of_a_server_stays(tmp_path: Path) -> None:
    assert server_id(tmp_path) == server_id(tmp_path)


def test_a_spoiled_name_is_made_anew(tmp_path: Path) -> None:
    before = server_id(tmp_path)
    (tmp_path / "server_id").write_bytes(b"\xff half")
    after = server_id(tmp_path)
    assert after != before
    assert server_id(tmp_path) == after


def test_a_name_that_cannot_be_saved_is_trouble_that_can_pass(tmp_path: Path) -> None:
    file = tmp_path / "no directory"
    file.touch()
    with pytest.raises(StoreError, match="Not a directory"):
        server_id(file)


class Machine:
    """The parts of a client, a websocket and a connection that definitions need."""

    times_connected = 1

    def __init__(self, values: int) -> None:
        self.definitions_values = values
        self.times_asked = 0

    def definitions(self) -> dict[str, Any]:
        self.times_asked += 1
        return {}

    def queue(self) -> None:
        raise NotImplementedError


def test_only_so_much_is_kept_of_what_unusually_large_machines_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_large_definitions", LargeDefinitions(10, 100))
    machines = [Machine(values) for values in (60, 60, 9, 200)]
    sessions = [
        ComfyUISession(cast(Any, machine), cast(Any, machine), cast(Any, machine)) for machine in machines
    ]
    for each in sessions[:3]:
        each.definitions()
    for each in sessions[:3]:
        each.definitions()
    assert [machine.times_asked for machine in machines[:3]] == [2, 2, 1]
    sessions[3].definitions()
    sessions[3].definitions()
    sessions[2].definitions()
    assert [machine.times_asked for machine in machines] == [2, 2, 1, 1]
