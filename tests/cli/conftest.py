"""Fixtures: the commands as a user types them, and servers for them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import click.testing
import pytest

from comfyui_workflow.cli import main
from comfyui_workflow.cli.own_server import serve_in_this_process
from comfyui_workflow.settings import load_settings
from tests.cli.canned_server import CannedServer

Command = Callable[..., click.testing.Result]
NO_SERVER_PORT = "1"


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Environment of a user whose settings are all below `tmp_path`; no server answers."""
    for name in list(os.environ):
        if name.startswith("COMFYUI_WORKFLOW_"):
            monkeypatch.delenv(name)
    own = {
        "COMFYUI_WORKFLOW_DATA_DIR": str(tmp_path / "data"),
        "COMFYUI_WORKFLOW_STATE_FILE": str(tmp_path / "state.json"),
        "COMFYUI_WORKFLOW_OUTPUT_DIR": str(tmp_path / "outputs"),
        "COMFYUI_WORKFLOW_PORT": NO_SERVER_PORT,
    }
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    return own


@pytest.fixture
def command(environment: dict[str, str]) -> Command:
    """Runs `command("list", "--json")`; returns the exit code, stdout and stderr. Fails on a traceback."""

    def give(*arguments: object) -> click.testing.Result:
        result = click.testing.CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result

    return give


@pytest.fixture
def server(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a running server, which the commands find by their settings."""
    settings = load_settings(port=0, data_dir=tmp_path / "server")
    with serve_in_this_process(settings) as url:
        monkeypatch.setenv("COMFYUI_WORKFLOW_SERVER_URL", url)
        yield url


@pytest.fixture
def canned() -> Iterator[CannedServer]:
    with CannedServer() as server:
        yield server
