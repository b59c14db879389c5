"""The sandbox of the demo: a process of its own, that never outlives this one."""

import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO, Self

from comfyui_workflow.errors import ConfigurationError

SSH_PORT, COMFYUI_PORT = 40738, 18188
"""The defaults of the sandbox; free ones are taken where these are not."""
START_LIMIT_S = 60.0
STOP_LIMIT_S = 5.0
_HOST = "127.0.0.1"


class DemoSandbox:
    """Started and ended with its block. It watches its stdin, so that it ends also when we are killed."""

    def __init__(self, root: Path, *, step_delay_s: float) -> None:
        self.root = root
        self.log_file = root / "sandbox.log"
        self.ssh_string = ""
        self._step_delay_s = step_delay_s
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Raises: ConfigurationError when it does not start."""
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            with self.log_file.open("wb") as log:
                self._process = subprocess.Popen(  # noqa: S603 - our own module
                    self._command(),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    process_group=0,  # a Ctrl-C is for us to pass on, when the server has let go of it
                )
            self.ssh_string = self._first_line(self._process.stdout)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def wait(self) -> None:
        """Until it ends by itself."""
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

    def _command(self) -> list[str]:
        options = {
            "--root": str(self.root),
            "--ssh-port": str(port_or_free(SSH_PORT)),
            "--comfyui-port": str(port_or_free(COMFYUI_PORT)),
            "--step-delay": str(self._step_delay_s),
        }
        return [sys.executable, "-m", "comfyui_workflow.demo.leashed_sandbox"] + [
            word for option in options.items() for word in option
        ]

    def _first_line(self, stdout: IO[bytes] | None) -> str:
        """Its ssh string, which it prints when it can be reached."""
        in_time = stdout is not None and select.select([stdout], [], [], START_LIMIT_S)[0]
        line = stdout.readline().decode().strip() if stdout and in_time else ""
        if not line:
            said = self.log_file.read_text(errors="replace").strip()
            raise ConfigurationError(f"The sandbox does not start: {said or 'it does not say why'}")
        return line


def port_or_free(port: int) -> int:
    """That port where it can be listened on, otherwise 0, which takes a free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return 0
    return port
