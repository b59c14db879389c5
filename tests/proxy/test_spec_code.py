"""Runs the Python code of the specification, unmodified, against a local port."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.proxy.setting import Setting
from tests.sandbox.graphs import quick_graph, slow_graph
from tests.sandbox.running_comfyui import wait_until

TEXT = (Path(__file__).parent / "data" / "comfyui-api-reference.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
CLIENT, USAGE, BATCH, MONITOR, VALIDATION, RETRY = BLOCKS


def at(port: int, code: str) -> str:
    """The specification uses 8188, the port of the primary instance; the tests use free ports."""
    return code.replace(":8188", f":{port}")


@pytest.fixture
def spec(setting: Setting) -> dict[str, Any]:
    """The names that the specification defines, including its client."""
    names: dict[str, Any] = {}
    exec(at(setting.port, CLIENT), names)
    return names


def test_the_client(setting: Setting, spec: dict[str, Any]) -> None:
    client = spec["ComfyUIClient"](f"http://127.0.0.1:{setting.port}")
    assert client.get_queue() == {"queue_running": [], "queue_pending": []}
    prompt_id = client.submit_workflow(quick_graph())["prompt_id"]
    completed = client.wait_for_completion(prompt_id, timeout=20, poll_interval=0.05)
    assert completed["status"]["status_str"] == "success"
    assert client.get_output_files(prompt_id) == [
        {"filename": "quick_00001_.png", "subfolder": "", "type": "output"}
    ]
    assert prompt_id in client.get_history()
    assert client.interrupt() is True
    assert client.free_memory() is True


def test_the_usage_example(
    setting: Setting, spec: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its graph has no output node, so ComfyUI refuses it; the rest of it runs on a graph that has one."""
    with pytest.raises(KeyError, match="prompt_id"):
        exec(at(setting.port, USAGE), spec)
    head, rest = at(setting.port, USAGE).split("# Submit\n")
    exec(head, spec)
    spec["workflow"] = quick_graph()
    exec(rest.replace("timeout=300)", "timeout=300, poll_interval=0.05)"), spec)
    assert "✓ Completed successfully" in capsys.readouterr().out


def test_a_batch(setting: Setting, spec: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """The example leaves `create_i2v_workflow` and the prompts open; its pauses are shortened."""
    spec["time"] = _Hasty()
    input_dir = setting.comfyui.folders.input_dir
    for number in range(1, 6):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(input_dir / f"keyframe_{number:02}.png")
    spec["motion_prompts"] = ["slowly"] * 5
    spec["create_i2v_workflow"] = lambda keyframe, motion: {
        "1": {"class_type": "LoadImage", "inputs": {"image": keyframe}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": motion}},
    }
    exec(at(setting.port, BATCH), spec)
    assert "[Batch] 5/5 workflows completed" in capsys.readouterr().out
    assert len(setting.comfyui.executions()) == 10


def test_the_monitor(setting: Setting, spec: dict[str, Any]) -> None:
    """It opens its websocket without a client id, and the client submits without one: ComfyUI itself would
    send it only progress messages."""
    setting.comfyui.pace.allow(0)
    printed: list[str] = []
    names: dict[str, Any] = {"print": printed.append}  # called from another thread, also after the test
    before, after = at(setting.port, MONITOR).split("# Submit workflows...")
    heard: list[dict[str, Any]] = []
    exec(before, names)
    for kind in ("executing", "execution_success"):
        names["monitor"].register_callback(kind, heard.append)
    wait_until(lambda: setting.state.open_sockets == 1)
    wait_until(lambda: names["monitor"].ws.sock and names["monitor"].ws.sock.connected)
    client = spec["ComfyUIClient"](f"http://127.0.0.1:{setting.port}")
    prompt_id = client.submit_workflow(slow_graph(steps=4))["prompt_id"]
    setting.comfyui.pace.allow(100)
    wait_until(lambda: any(each["type"] == "execution_success" for each in heard))
    wait_until(lambda: heard[-1]["data"].get("node", "") is None, what="executing null")
    exec(after, names)
    wait_until(lambda: "[WebSocket] Connection closed" in printed)
    assert f"Execution started: {prompt_id}" in printed
    assert re.findall(r"Progress: (\d)/4", "\n".join(printed)) == ["1", "2", "3", "4"]
    assert f"Execution completed: {prompt_id}" in printed
    assert [each["data"]["node"] for each in heard if each["type"] == "executing"] == ["1", "2", "3", None]


def test_validation_and_retries(setting: Setting, spec: dict[str, Any]) -> None:
    spec["client"] = spec["ComfyUIClient"](f"http://127.0.0.1:{setting.port}")
    spec["workflow"] = quick_graph()
    exec(VALIDATION, spec)
    exec(RETRY, spec)
    assert spec["errors"] == []
    assert set(json.loads(json.dumps(spec["result"]))) == {"prompt_id", "number", "node_errors"}
    assert len(setting.comfyui.executions()) in (1, 2, 3, 4)


class _Hasty:
    """The `time` module with seconds that are 100 times shorter."""

    time = staticmethod(time.time)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / 100)
