"""What an open way to a ComfyUI needs to know of this server."""

from pathlib import Path

import pytest

from comfyui_workflow.errors import StoreError
from comfyui_workflow.link import server_id


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
