"""Importing the client is cheap: it opens nothing and brings nothing of the server along."""

import json
import subprocess
import sys

HEAVY = {"flask", "paramiko", "waitress", "sshtunnel", "asyncssh", "aiohttp", "numpy", "rich", "click"}
SCRIPT = """
import json, sys, threading
from comfyui_workflow.client import ComfyUI, WorkflowServer
names = sorted({name.split(".")[0] for name in sys.modules})
ours = sorted(name for name in sys.modules if name.startswith("comfyui_workflow."))
print(json.dumps([threading.active_count(), names, ours]))
"""
OURS = {"client", "comfyui", "runs", "workflows", "errors", "parsing", "retry", "concurrency", "files"}


def test_importing_is_cheap() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    threads, names, ours = json.loads(done.stdout)
    assert threads == 1
    assert HEAVY & set(names) == set()
    assert {name.split(".")[1] for name in ours} <= OURS


def test_a_command_brings_nothing_of_the_server_along() -> None:
    script = "import json, sys, comfyui_workflow.cli; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = set(json.loads(done.stdout))
    libraries = {"flask", "waitress", "aiohttp", "asyncssh", "boto3", "numpy"}
    assert modules & {"comfyui_workflow.app", *libraries} == set()
