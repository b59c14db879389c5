"""Tests that exceptions are found in the log of ComfyUI."""

from comfyui_workflow.comfyui.tracebacks import request_failure, worker_death
from tests.comfyui.test_stall_detector import TRACE

FAILED_REQUEST = """got prompt
Error handling request from 127.0.0.1
Traceback (most recent call last):
  File "/opt/venv/lib/python3.11/site-packages/aiohttp/web_protocol.py", line 530, in _handle_request
    resp = await request_handler(request)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/opt/ComfyUI/app/node_replace_manager.py", line 13, in copy_node_struct
    "_meta": node["_meta"],
KeyError: '_meta'
got prompt
"""


def test_the_trace_of_a_dead_worker_is_found() -> None:
    assert worker_death(TRACE) == "comfy_execution.graph.NodeNotFoundError: Node 99 not found"
    assert worker_death("got prompt\nPrompt executed in 0.01 seconds\n") is None
    assert worker_death("Exception in thread Thread-1 (prompt_worker):") == "its log does not say why"


def test_the_exception_of_the_newest_failed_request_is_found() -> None:
    older = FAILED_REQUEST.replace("_meta", "older")
    assert request_failure(older + FAILED_REQUEST) == "KeyError: '_meta'"
    assert request_failure(TRACE) is None
    assert request_failure("Error handling request from 127.0.0.1\n") is None
