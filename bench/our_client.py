"""The fastest possible client of the server: a keep-alive connection; it detects the end of a run on disk."""

import time
from pathlib import Path
from typing import Any, Self

import requests

from tests.server_process import ServerProcess

CHECK_EVERY_S = 0.0005
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
        """Runs the graph; returns when the run is saved as finished, after its picture is in the
        directory."""
        body = {**self._instance, "workflow": graph, "output_dir": str(directory)}
        answer = self._session.post(f"{self._server.url}/execute", json=body, timeout=TIMEOUT_S)
        run_id = str(answer.json()["workflow_id"])
        self._wait_for_record(run_id)
        return run_id

    def check(self, run_id: str) -> None:
        """Raises: RuntimeError if the run did not complete."""
        progress = self._server.progress(run_id)
        if progress["status"] != "completed":
            raise RuntimeError(f"the run did not complete: {progress}")

    def _wait_for_record(self, run_id: str) -> None:
        """Polls the disk, because HTTP requests at this rate would slow down the measured run."""
        record = self._server.data_dir / "runs" / "finished" / run_id
        deadline_s = time.monotonic() + TIMEOUT_S
        while not record.exists():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the run did not end: {self._server.progress(run_id)}")
            time.sleep(CHECK_EVERY_S)
