"""The sandbox as a process of its own, as a user starts it: what most tests run against.

with SandboxProcess(tmp_path / "sandbox") as sandbox:
    sandbox.ssh_string, sandbox.comfyui_url, sandbox.input_dir, sandbox.output_dir
    sandbox.executions()               # what its GPU was used for, one entry a prompt
    sandbox.faults(step_delay_s=0.1)   # misbehave; `reset` ends it
    sandbox.freeze(), sandbox.thaw()   # the whole machine stops answering
    sandbox.kill(), sandbox.restart()  # same ports, same host key, empty ComfyUI
"""

import json
import os
import select
import signal
import socket
from pathlib import Path
from typing import Any, Self

import requests

from comfyui_workflow.sandbox.layout import Layout
from tests.lifeline import Lifeline
from tests.processes import Process, start_python

START_LIMIT_S = 30.0
STOP_LIMIT_S = 10.0


class SandboxProcess:
    def __init__(self, root: Path, *, options: tuple[str, ...] = ()) -> None:
        self.layout = Layout(root)
        self.root = self.layout.root
        self.input_dir = self.layout.folders.input_dir
        self.output_dir = self.layout.folders.output_dir
        self.temp_dir = self.layout.folders.temp_dir
        self.execution_log = self.root / "executions.jsonl"
        self.ssh_string = ""
        self._options = options
        self._process: Process | None = None
        self._lifeline: Lifeline | None = None
        # Bound but not listening: nobody else gets these ports between two starts.
        self._claims = [_claimed_port(), _claimed_port()]
        self.ssh_port, self.comfyui_port = (claim.getsockname()[1] for claim in self._claims)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def comfyui_url(self) -> str:
        return f"http://127.0.0.1:{self.comfyui_port}"

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Returns when both servers listen."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "stderr.log").open("ab") as errors:
            self._process = start_python(
                self._arguments(),
                env=dict(os.environ),
                errors=errors,
                stands_alone=True,  # a Ctrl-C is for the tests, which then end it
            )
        self._lifeline = Lifeline(self._process.pid)
        self.ssh_string = self._first_line()

    def stop(self) -> int:
        """End it as Ctrl-C does, and return its exit code."""
        self._running().send_signal(signal.SIGINT)
        return self.wait()

    def wait(self) -> int:
        """Until it has ended, which somebody asked it to; returns its exit code."""
        process = self._running()
        code = process.wait(STOP_LIMIT_S)
        if self._lifeline is not None:
            self._lifeline.release()
        if process.stdout is not None:
            process.stdout.close()
        return code

    def kill(self) -> None:
        """Kills the process, as if the machine were taken away."""
        self._running().kill()
        self.wait()

    def restart(self) -> None:
        if self.is_running:
            self.kill()
        self.start()

    def freeze(self) -> None:
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Leave nothing behind. Idempotent."""
        if self.is_running:
            self.kill()
        for claim in self._claims:
            claim.close()

    def executions(self) -> list[dict[str, Any]]:
        """The start lines of the execution log: one for each time a prompt was really executed."""
        if not self.execution_log.exists():
            return []
        lines = self.execution_log.read_text().splitlines()
        return [entry for entry in map(json.loads, lines) if entry["event"] == "start"]

    def faults(self, **faults: object) -> None:
        """Make it misbehave."""
        self._post("/sandbox/faults", faults)

    def reset(self) -> None:
        """Resets faults, prompts, history, files and the execution log. Starts an ended process."""
        if not self.is_running:
            self.start()
        self.thaw()
        try:
            self._post("/sandbox/reset", {})
        except (requests.ConnectionError, requests.Timeout):  # the last test left its ComfyUI down
            self.restart()
            self._post("/sandbox/reset", {})
        self.execution_log.unlink(missing_ok=True)

    def errors(self) -> str:
        """Returns the content of stderr so far."""
        return (self.root / "stderr.log").read_text()

    def _post(self, path: str, body: object) -> None:
        answer = requests.post(self.comfyui_url + path, json=body, timeout=10)
        answer.raise_for_status()

    def _arguments(self) -> list[str]:
        arguments = ["-m", "comfyui_workflow.sandbox"]
        arguments += ["--root", str(self.root), "--execution-log", str(self.execution_log)]
        arguments += ["--ssh-port", str(self.ssh_port), "--comfyui-port", str(self.comfyui_port)]
        return [*arguments, *self._options]

    def _first_line(self) -> str:
        process = self._running()
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], START_LIMIT_S)
        line = process.stdout.readline().rstrip("\n") if ready else ""
        if not line:
            self.kill()
            raise RuntimeError(f"the sandbox does not start:\n{self.errors()}")
        return line

    def _running(self) -> Process:
        assert self._process is not None, "the sandbox was not started"
        return self._process


def _claimed_port() -> socket.socket:
    claim = socket.socket()
    claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    claim.bind(("127.0.0.1", 0))
    return claim
