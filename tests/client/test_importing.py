"""Importing the client is cheap: it opens nothing and brings nothing of the server along."""

import json
import subprocess
import sys

HEAVY = {"flask", "paramiko", "waitress", "sshtunnel", "asyncssh", "aiohttp", "numpy", "rich", "click", "app"}
SCRIPT = """
import json, sys, threading, time
began_s = time.process_time()
from comfyui_workflow.client import ComfyUI, WorkflowServer
took_s = time.process_time() - began_s
names = sorted({name.split(".")[0] for name in sys.modules})
ours = sorted(name for name in sys.modules if name.startswith("comfyui_workflow."))
print(json.dumps([took_s, threading.active_count(), names, ours]))
"""
OURS = {"client", "comfyui", "runs", "workflows", "errors", "untrusted", "patience", "settling", "wholeness"}


def test_importing_is_cheap() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    took_s, threads, names, ours = json.loads(done.stdout)
    assert took_s < 0.6, "0.25 s where nothing else runs, most of it for requests and pydantic"
    assert threads == 1
    assert HEAVY & set(names) == set()
    assert {name.split(".")[1] for name in ours} <= OURS
