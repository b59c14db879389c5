"""Sandbox of the demo: a child process that never outlives this process."""

import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO, Self

from comfyui_workflow.errors import ConfigurationError

SSH_PORT, COMFYUI_PORT = 40738, 18188
"""Default ports of the sandbox; if one is in use, a free port is chosen."""
START_LIMIT_S = 60.0
STOP_LIMIT_S = 5.0
_HOST = "127.0.0.1"


def port_or_free(port: int) -> int:
    """Returns the port if it is free, else 0, which means any free port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return 0
    return port


class DemoSandbox:
    """Runs the sandbox process for a `with` block. The process also ends when its stdin closes, so it ends
    even if this process is killed."""

    def __init__(self, root: Path, *, step_delay_s: float) -> None:
        self.root = root
        self.log_file = root / "sandbox.log"
        self.ssh_string = ""
        self._step_delay_s = step_delay_s
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Starts the sandbox. Raises: ConfigurationError if it does not start."""
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            self.ssh_string = self._start(port_or_free(SSH_PORT), port_or_free(COMFYUI_PORT))
            if not self.ssh_string:  # another program may have taken one of the ports
                self.stop()
                self.ssh_string = self._start(0, 0)
            if not self.ssh_string:
                raise ConfigurationError(f"The sandbox does not start. {self._last_log_line()}")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def wait(self) -> None:
        """Waits until the process ends."""
        if self._process:
            self._process.wait()

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with process:  # closes its pipes
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()

    def _start(self, ssh_port: int, comfyui_port: int) -> str:
        """Starts the process and returns its first line, the ssh string, which it prints when it is ready;
        empty if it fails."""
        options = {"--root": self.root, "--ssh-port": ssh_port, "--comfyui-port": comfyui_port}
        command = [sys.executable, "-m", "comfyui_workflow.demo.leashed_sandbox"]
        command += [str(word) for option in options.items() for word in option]
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [*command, "--step-delay", str(self._step_delay_s)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                process_group=0,  # Ctrl-C must not reach it before the server has disconnected
            )
        return _first_line(self._process.stdout)

    def _last_log_line(self) -> str:
        lines = self.log_file.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "Its log is empty."


def _first_line(stdout: IO[bytes] | None) -> str:
    in_time = stdout is not None and select.select([stdout], [], [], START_LIMIT_S)[0]
    return stdout.readline().decode().strip() if stdout and in_time else ""
