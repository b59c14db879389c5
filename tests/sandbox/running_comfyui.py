"""A sandbox ComfyUI inside the test process, on an event loop in its own thread."""

import asyncio
import json
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import requests
import websocket

from comfyui_workflow.sandbox.comfyui_server import ComfyUIServer
from comfyui_workflow.sandbox.node import Folders
from comfyui_workflow.sandbox.nodes import NODE_CLASSES
from tests.sandbox.lab_nodes import Pace, lab_classes

LIMIT_S = 20.0


def wait_until(condition: Callable[[], Any], *, what: str = "", limit_s: float = LIMIT_S) -> Any:
    """Polls `condition` and returns its first true result. Raises: AssertionError after the time limit."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.005)
    raise AssertionError(f"never came true: {what or condition}")


class RunningComfyUI:
    def __init__(self, root: Path, *, preview_method: str = "auto") -> None:
        self.folders = Folders(input_dir=root / "input", output_dir=root / "output", temp_dir=root / "temp")
        self.execution_log = root / "executions.jsonl"
        self.pace = Pace()
        self._server = ComfyUIServer(
            folders=self.folders,
            node_classes={**NODE_CLASSES, **lab_classes(self.pace)},
            execution_log=self.execution_log,
            preview_method=preview_method,
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(LIMIT_S)
        return self

    def __exit__(self, *exception: object) -> None:
        self.pace.allow(math.inf)
        asyncio.run_coroutine_threadsafe(self._server.stop(), self._loop).result(LIMIT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(LIMIT_S)
        self._loop.close()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url(path), timeout=LIMIT_S, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> requests.Response:
        return requests.post(self.url(path), json=body, timeout=LIMIT_S, **options)

    def faults(self, **faults: Any) -> dict[str, Any]:
        response = self.post("/sandbox/faults", faults)
        response.raise_for_status()
        return dict(response.json())

    def submit(self, graph: dict[str, Any], **body: Any) -> str:
        response = self.post("/prompt", {"prompt": graph, **body})
        assert response.status_code == 200, response.text
        return str(response.json()["prompt_id"])

    def wait_for(self, prompt_id: str) -> dict[str, Any]:
        """Waits until the prompt is finished, and returns its history entry."""
        history = wait_until(lambda: self.get(f"/history/{quote(prompt_id, safe='')}").json(), what="history")
        return dict(history[prompt_id])

    def executions(self) -> list[dict[str, Any]]:
        if not self.execution_log.exists():
            return []
        return [json.loads(line) for line in self.execution_log.read_text().splitlines()]


class Listener:
    """A websocket client that collects frames in its own thread."""

    def __init__(self, comfyui: RunningComfyUI, query: str = "") -> None:
        self.frames: list[dict[str, Any] | bytes] = []
        self.is_over = False
        url = f"ws://127.0.0.1:{comfyui.port}/ws{query}"
        self.socket = websocket.create_connection(url, timeout=LIMIT_S, suppress_origin=True)
        threading.Thread(target=self._listen, daemon=True).start()

    def wait_for_frames(self, count: int) -> None:
        wait_until(lambda: len(self.frames) >= count, what=f"{count} frames")

    def wait_for_type(self, message_type: str) -> dict[str, Any]:
        found = wait_until(lambda: self.of_type(message_type), what=message_type)
        return dict(found[-1])

    def of_type(self, message_type: str) -> list[dict[str, Any]]:
        texts = [frame for frame in self.frames if isinstance(frame, dict)]
        return [frame["data"] for frame in texts if frame["type"] == message_type]

    def send(self, message: Any) -> None:
        self.socket.send(json.dumps(message))

    def cut(self) -> None:
        """Ends the TCP connection without a close frame."""
        self.socket.shutdown()

    def _listen(self) -> None:
        try:
            while True:
                frame = self.socket.recv()
                if isinstance(frame, str) and not frame:
                    break
                self.frames.append(json.loads(frame) if isinstance(frame, str) else frame)
        except (websocket.WebSocketException, OSError):
            pass
        self.is_over = True
