"""The import of the client is cheap: it opens nothing and imports no server module."""

import json
import subprocess
import sys

import pytest

from comfyui_workflow import client

HEAVY = {"flask", "paramiko", "waitress", "sshtunnel", "asyncssh", "aiohttp", "numpy", "rich", "click"}
SCRIPT = """
import json, sys, threading
from comfyui_workflow.client import ComfyUI, WorkflowServer
names = sorted({name.split(".")[0] for name in sys.modules})
ours = sorted(name for name in sys.modules if name.startswith("comfyui_workflow."))
print(json.dumps([threading.active_count(), names, ours]))
"""
EVERY_COMMAND = """
import json, sys
from importlib import import_module
from comfyui_workflow.cli import COMMANDS
for source in COMMANDS.values():
    import_module(source.module)
print(json.dumps(sorted(sys.modules)))
"""
OURS = {"client", "comfyui", "runs", "workflows", "errors", "parsing", "retry", "concurrency", "files"}


def test_importing_is_cheap() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    threads, names, ours = json.loads(done.stdout)
    assert threads == 1
    assert HEAVY & set(names) == set()
    assert {name.split(".")[1] for name in ours} <= OURS


def test_a_command_brings_nothing_of_the_server_along() -> None:
    done = subprocess.run([sys.executable, "-c", EVERY_COMMAND], capture_output=True, text=True, check=True)
    modules = set(json.loads(done.stdout))
    libraries = {"flask", "waitress", "aiohttp", "asyncssh", "boto3", "numpy"}
    assert modules & {"comfyui_workflow.app", *libraries} == set()


def test_what_is_imported_later_is_there_all_the_same() -> None:
    for name in client.__all__:
        assert getattr(client, name).__name__ == name or name == "Graph"
    assert set(client._IMPORTED_LATER) <= set(client.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = client.Nothing
