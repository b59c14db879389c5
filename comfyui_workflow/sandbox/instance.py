"""Sandbox instance: an SSH server and the ComfyUI behind it, started and stopped together."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from comfyui_workflow.sandbox.comfyui_server import ComfyUIServer
from comfyui_workflow.sandbox.layout import Layout
from comfyui_workflow.sandbox.nodes import NODE_CLASSES
from comfyui_workflow.sandbox.ssh_server import USERNAME, SSHServer
from comfyui_workflow.sandbox.versions import DEFAULT_VERSION

HOST = "127.0.0.1"


class PortTaken(Exception):
    """The instance cannot listen on one of its two ports; the message says which one and why."""


@dataclass(kw_only=True)
class SandboxInstance:
    """The instance that `python -m comfyui_workflow.sandbox` runs. Use it on one event loop.

    Port 0 selects a free port; after `start`, both attributes have the real port numbers.
    """

    root: Path
    ssh_port: int = 0
    comfyui_port: int = 0
    execution_log: Path | None = None
    step_delay_s: float = 0.0
    preview_method: str = "auto"
    comfyui_version: str = DEFAULT_VERSION

    def __post_init__(self) -> None:
        self.layout = Layout(self.root)
        self._comfyui: ComfyUIServer | None = None
        self._ssh: SSHServer | None = None

    @property
    def ssh_string(self) -> str:
        """The ssh command that connects to this instance, with the tunnel to its ComfyUI."""
        return (
            f"ssh -p {self.ssh_port} -i {shlex.quote(str(self.layout.client_key_path))} {USERNAME}@{HOST}"
            f" -L {self.comfyui_port}:localhost:{self.comfyui_port}"
        )

    async def start(self) -> None:
        """Creates missing files below the root and listens on both ports. Raises: PortTaken."""
        keys = self.layout.make()
        try:
            self._comfyui = self._new_comfyui()
            self.comfyui_port = await _listening(self._comfyui, self.comfyui_port, "ComfyUI")
            self._ssh = SSHServer(
                layout=self.layout, keys=keys, comfyui_port=self.comfyui_port, faults=self._comfyui.faults
            )
            self._comfyui.faults.ssh_faults = self._ssh.gate
            self.ssh_port = await _listening(self._ssh, self.ssh_port, "SSH")
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Aborts all connections and closes both ports."""
        if self._ssh:
            await self._ssh.stop()
        if self._comfyui:
            await self._comfyui.stop()
        self._ssh = self._comfyui = None

    def _new_comfyui(self) -> ComfyUIServer:
        comfyui = ComfyUIServer(
            folders=self.layout.folders,
            node_classes=NODE_CLASSES,
            execution_log=self.execution_log,
            preview_method=self.preview_method,
        )
        comfyui.faults.change({"step_delay_s": self.step_delay_s, "version": self.comfyui_version})
        return comfyui


async def _listening(server: ComfyUIServer | SSHServer, port: int, what: str) -> int:
    try:
        return await server.start(HOST, port)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise PortTaken(f"The {what} port {port} of {HOST} cannot be used: {reason}.") from error
