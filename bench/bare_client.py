"""The reference client: a websocket and three requests to ComfyUI, without SSH and without saved state."""

import json
import uuid
from pathlib import Path
from typing import Any, Self

import requests
import websocket

TIMEOUT_S = 30.0


class BareClient:
    """A warm client: its websocket is open, and its HTTP connection is kept alive."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client_id = uuid.uuid4().hex
        self._session = requests.Session()
        self._session.trust_env = False
        socket_url = url.replace("http", "ws", 1) + f"/ws?clientId={self._client_id}"
        self._socket = websocket.create_connection(socket_url, timeout=TIMEOUT_S, suppress_origin=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()
        self._session.close()

    def run(self, graph: dict[str, Any], directory: Path) -> Path:
        """Runs the graph and downloads its single picture to the directory; returns the path."""
        body = {"prompt": graph, "client_id": self._client_id}
        answer = self._session.post(f"{self._url}/prompt", json=body, timeout=TIMEOUT_S)
        prompt_id = answer.json()["prompt_id"]
        self._wait_for_end(prompt_id)
        history = self._session.get(f"{self._url}/history/{prompt_id}", timeout=TIMEOUT_S).json()
        outputs = history[prompt_id]["outputs"].values()
        image = next(image for node in outputs for image in node["images"])
        picture = self._session.get(f"{self._url}/view", params=image, timeout=TIMEOUT_S)
        picture.raise_for_status()
        file = directory / str(image["filename"])
        file.write_bytes(picture.content)
        return file

    def _wait_for_end(self, prompt_id: str) -> None:
        while True:
            frame = self._socket.recv()
            if not isinstance(frame, str):
                continue
            message = json.loads(frame)
            data = message.get("data", {})
            is_last = message.get("type") == "executing" and data.get("node") is None
            if is_last and data.get("prompt_id") == prompt_id:
                return
