"""The server as a process of its own, as a user starts it, and the native API as a client sees it.

with ServerProcess(tmp_path) as server:
    run = server.execute(instance, graph, ...)     # progress document of the new run
    run = server.until_finished(run)
    server.kill(); server.start()                  # kill -9, and a new start on the same data
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import requests

from tests.checked_client import check_answer
from tests.processes import Process, start_python

Json = dict[str, Any]
FINISHED = ("completed", "failed", "cancelled")


class ServerProcess:
    def __init__(self, directory: Path, **settings: object) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        self.output_dir = directory / "outputs"
        self.state_file = directory / "state.json"
        self.arguments = ["app.py"]
        self.url = ""
        self.settings = settings
        self._process: Process | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when requests are answered."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._process = start_python(self.arguments, env=self._environment(), errors=log)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("Serving on "), self.log()
        self.url = line.split()[-1] + "/comfyui/workflow"

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self.wait()

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def has_ended(self) -> bool:
        """By itself."""
        return self._process is None or self._process.poll() is not None

    def wait(self) -> int:
        assert self._process is not None
        code = self._process.wait(30)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None
        return code

    @property
    def log_file(self) -> Path:
        return self.directory / "server.log"

    def log(self) -> str:
        return self.log_file.read_text()

    def post(self, path: str, body: object | None = None) -> requests.Response:
        return _checked(requests.post(self.url + path, json=body, timeout=30))

    def get(self, path: str) -> Json:
        answer = _checked(requests.get(self.url + path, timeout=30))
        answer.raise_for_status()
        found: Json = answer.json()
        return found

    def execute(self, ssh_connection: str, graph: Json, **fields: object) -> str:
        """The id of the new run."""
        body = {"ssh_connection": ssh_connection, "workflow": graph, "output_dir": str(self.output_dir)}
        answer = self.post("/execute", {**body, **fields})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["workflow_id"])

    def progress(self, run_id: str) -> Json:
        found: Json = self.get(f"/{run_id}/progress")["progress"]
        return found

    def until(self, run_id: str, condition: Callable[[Json], bool], timeout_s: float = 30) -> Json:
        """The progress document as soon as the condition holds."""
        deadline = time.monotonic() + timeout_s
        while not condition(progress := self.progress(run_id)):
            assert time.monotonic() < deadline, f"{progress}\n{self.log()[-3000:]}"
            time.sleep(0.02)
        return progress

    def until_status(self, run_id: str, *statuses: str, timeout_s: float = 30) -> Json:
        return self.until(run_id, lambda p: p["status"] in statuses, timeout_s)

    def until_finished(self, run_id: str, timeout_s: float = 30) -> Json:
        return self.until_status(run_id, *FINISHED, timeout_s=timeout_s)

    def _environment(self) -> dict[str, str]:
        own = {
            "host": "127.0.0.1",
            "port": 0,
            "data_dir": self.data_dir,
            "state_file": self.state_file,
            "search_ports": False,  # other tests run other ComfyUIs on this machine at the same time
            **self.settings,
        }
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("COMFYUI_WORKFLOW_")}
        return inherited | {f"COMFYUI_WORKFLOW_{name.upper()}": str(value) for name, value in own.items()}


def _checked(answer: requests.Response) -> requests.Response:
    """Held against its schema."""
    path = unquote(urlsplit(answer.url).path)
    media_type = answer.headers.get("Content-Type", "").partition(";")[0]
    check_answer(str(answer.request.method), path, answer.status_code, media_type, lambda: answer.content)
    return answer
