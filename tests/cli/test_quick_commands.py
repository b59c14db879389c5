"""Imports of the commands: a command must not import slow modules that it does not need."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from comfyui_workflow.cli import COMMANDS, main
from tests.cli.canned_server import CannedServer
from tests.cli.conftest import Command
from tests.cli.documents import raw_progress

NOT_FOR_HELP = {"requests", "urllib3", "msgspec", "comfyui_workflow.client"}
NOT_FOR_A_LIST = {"pydantic", "pydantic_settings", "rich", "requests", "paramiko", "flask", "websocket"}
NOT_TO_START_THE_SERVER = {"aiohttp", "AntiSSRF", "limits", "PIL", "boto3", "azure", "huggingface_hub"}
SCRIPT = """
import json, sys
from comfyui_workflow.cli import main
main(sys.argv[1:], standalone_mode=False)
print(json.dumps(sorted(sys.modules)))
"""
STARTED_SERVER = """
import gc, json, sys
from comfyui_workflow.server.memory import collect_no_garbage
collect_no_garbage()
from comfyui_workflow.app import create_server
from comfyui_workflow.server import http
from comfyui_workflow.settings import load_settings

def on_ready(url, resumed):
    assert gc.isenabled()
    print(json.dumps(sorted(sys.modules)))
    raise KeyboardInterrupt

settings = load_settings()
http.serve(create_server(settings), settings, on_ready)
"""


def test_help_imports_no_command() -> None:
    imported = _imported("--help")
    assert not imported & (NOT_FOR_HELP | NOT_FOR_A_LIST)
    assert not imported & {source.module for source in COMMANDS.values()}


@pytest.mark.usefixtures("environment")
def test_a_list_imports_what_asks_the_server_and_no_more(canned: CannedServer) -> None:
    run = raw_progress(output_count=1)
    canned.will_answer((200, {"unfinished_runs": 0}), (200, {"success": True, "workflows": [run]}))
    imported = _imported("list", "--server", canned.url)
    assert "comfyui_workflow.client.server" in imported
    assert not imported & NOT_FOR_A_LIST


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_all_says_what_each_says_of_itself(name: str) -> None:
    source = COMMANDS[name]
    command = main.get_command(main.make_context("comfyui-workflow", [], resilient_parsing=True), name)
    assert command is not None
    own = command.get_short_help_str(limit=1000).rstrip(".")
    assert own.startswith(source.summary.rstrip(".").split(": ")[0])
    assert source.summary.endswith(".") and len(source.summary) <= 65
    assert command.name == name


def test_the_help_of_all_names_every_command(command: Command) -> None:
    shown = command("--help").stdout
    for name, source in COMMANDS.items():
        assert f"  {name}" in shown
        assert source.summary in shown


def test_a_command_that_does_not_exist_is_refused(command: Command) -> None:
    result = command("lst")
    assert result.exit_code == 2
    assert "No such command 'lst'" in result.stderr


def test_the_start_of_the_server_imports_what_answers_and_no_more(tmp_path: Path) -> None:
    environment = os.environ | {
        "COMFYUI_WORKFLOW_DATA_DIR": str(tmp_path / "data"),
        "COMFYUI_WORKFLOW_STATE_FILE": str(tmp_path / "state.json"),
        "COMFYUI_WORKFLOW_PORT": "0",
    }
    imported = _imported(script=STARTED_SERVER, environment=environment)
    assert "comfyui_workflow.app" in imported
    assert not imported & NOT_TO_START_THE_SERVER


def _imported(
    *arguments: str, script: str = SCRIPT, environment: Mapping[str, str] | None = None
) -> set[str]:
    """Returns the modules that are loaded at the end of the command."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))
