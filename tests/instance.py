"""An instance as tests see one, whichever SSH server stands in front of it."""

import threading
from typing import Protocol

from tests.sandbox_process import SandboxProcess
from tests.sshd import Sshd


class Instance(Protocol):
    sandbox: SandboxProcess

    @property
    def ssh_string(self) -> str: ...

    @property
    def comfyui_port(self) -> int: ...

    def cut(self) -> None:
        """Drop every SSH connection there is."""

    def refuse(self, seconds: float) -> None:
        """Refuse new SSH connections for so long."""


class SandboxSSHInstance:
    def __init__(self, sandbox: SandboxProcess) -> None:
        self.sandbox = sandbox

    @property
    def ssh_string(self) -> str:
        return self.sandbox.ssh_string

    @property
    def comfyui_port(self) -> int:
        return self.sandbox.comfyui_port

    def cut(self) -> None:
        self.sandbox.faults(cut_ssh=True)

    def refuse(self, seconds: float) -> None:
        self.sandbox.faults(refuse_ssh_s=seconds)


class OpenSSHInstance:
    def __init__(self, sandbox: SandboxProcess, sshd: Sshd) -> None:
        self.sandbox = sandbox
        self._sshd = sshd
        self._back: threading.Timer | None = None

    @property
    def ssh_string(self) -> str:
        return self._sshd.ssh_string(comfyui_port=self.sandbox.comfyui_port)

    @property
    def comfyui_port(self) -> int:
        return self.sandbox.comfyui_port

    def cut(self) -> None:
        self._sshd.kill_connections()

    def refuse(self, seconds: float) -> None:
        self._sshd.stop_listening()
        self._back = threading.Timer(seconds, self._sshd.start)
        self._back.start()

    def settle(self) -> None:
        """Listen again and leave no connection, for the next test."""
        if self._back:
            self._back.join()
        self._sshd.kill_connections()
