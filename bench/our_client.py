"""A client of the server, as quick as one can be: its connection is kept alive, the end is seen on disk."""

import time
from pathlib import Path
from typing import Any, Self

import requests

from tests.server_process import ServerProcess

LOOK_EVERY_S = 0.0005
TIMEOUT_S = 60.0


class OurClient:
    def __init__(self, server: ServerProcess, ssh_string: str, comfyui_output_dir: Path) -> None:
        self._server = server
        self._instance = {"ssh_connection": ssh_string, "comfyui_output_dir": str(comfyui_output_dir)}
        self._session = requests.Session()
        self._session.trust_env = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._session.close()

    def run(self, graph: dict[str, Any], directory: Path) -> str:
        """Returns when the run is saved as finished, which it is once its picture is in the directory."""
        body = {**self._instance, "workflow": graph, "output_dir": str(directory)}
        answer = self._session.post(f"{self._server.url}/execute", json=body, timeout=TIMEOUT_S)
        run_id = str(answer.json()["workflow_id"])
        self._wait_for_record(run_id)
        return run_id

    def check(self, run_id: str) -> None:
        """Raises: RuntimeError for a run that was no success."""
        progress = self._server.progress(run_id)
        if progress["status"] != "completed":
            raise RuntimeError(f"the run did not complete: {progress}")

    def _wait_for_record(self, run_id: str) -> None:
        """Asking over HTTP as often as this would slow down what is measured."""
        record = self._server.data_dir / "runs" / "finished" / run_id
        deadline_s = time.monotonic() + TIMEOUT_S
        while not record.exists():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the run did not end: {self._server.progress(run_id)}")
            time.sleep(LOOK_EVERY_S)
