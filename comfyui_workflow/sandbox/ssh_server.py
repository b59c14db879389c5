"""SSH server of the sandbox. One client key is accepted; it gives access to the files (SFTP) and to ComfyUI
(tunnel), but not to a shell."""

import logging
import socket
from collections.abc import Awaitable
from typing import cast

import asyncssh

from comfyui_workflow.sandbox.faults import FaultBoard
from comfyui_workflow.sandbox.layout import Keys, Layout
from comfyui_workflow.sandbox.ssh_files import ConfinedFiles
from comfyui_workflow.sandbox.ssh_gate import SSHGate

USERNAME = "sandbox"
NO_SHELL = "This sandbox has no shell: it offers SFTP, and a tunnel to its ComfyUI (ssh -N -L ...).\n"

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")

log = logging.getLogger(__name__)


class SSHServer:
    """A real SSH server for one layout and one ComfyUI on 127.0.0.1. Use it on one event loop.

    `gate` simulates faults: abort, refuse or freeze connections.
    """

    def __init__(
        self, *, layout: Layout, keys: Keys, comfyui_port: int, faults: FaultBoard | None = None
    ) -> None:
        self._faults = faults or FaultBoard()
        self._layout, self._keys, self._comfyui_port = layout, keys, comfyui_port
        self._options: asyncssh.SSHServerConnectionOptions | None = None
        self.gate = SSHGate(self._serve)
        self._port = 0

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listens, and returns the port (0: a free one). Raises: OSError if the port is in use."""
        self._options = asyncssh.SSHServerConnectionOptions(
            server_factory=self._new_connection,
            server_host_keys=[self._keys.host_key],
            password_auth=False,
            kbdint_auth=False,
            process_factory=_refuse_shell,
            sftp_factory=self._files,
            allow_pty=False,
            agent_forwarding=False,
        )
        self._port = await self.gate.start(host, port)
        return self._port

    async def stop(self) -> None:
        """Aborts all connections and closes the port."""
        await self.gate.stop()

    async def _serve(self, connection: socket.socket) -> None:
        try:
            await asyncssh.run_server(connection, options=self._options)
        except (OSError, asyncssh.Error) as error:
            log.debug("An SSH client was refused: %s", error)

    def _new_connection(self) -> asyncssh.SSHServer:
        return _Connection(self._keys.client_key, self._comfyui_port, self._port)

    def _files(self, channel: "asyncssh.SSHServerChannel[bytes]") -> ConfinedFiles:
        return ConfinedFiles(channel, self._layout, self._faults)


LAST_SYSTEM_PORT = 1023


class _Connection(asyncssh.SSHServer):
    """Permissions of one connection."""

    def __init__(self, client_key: asyncssh.SSHKey, comfyui_port: int, ssh_port: int) -> None:
        self._client_key, self._comfyui_port, self._ssh_port = client_key, comfyui_port, ssh_port

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return username == USERNAME and key.public_data == self._client_key.public_data

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Awaitable[asyncssh.SSHTCPSession[bytes]]:
        """Accepts a tunnel to ComfyUI only, under any name of this machine. To a client, nothing else listens
        on this machine but its SSH server and its system. Raises: ChannelOpenError."""
        if dest_host.lower() not in _LOOPBACK_NAMES or dest_port != self._comfyui_port:
            is_here = dest_host.lower() in _LOOPBACK_NAMES
            is_empty = is_here and dest_port > LAST_SYSTEM_PORT and dest_port != self._ssh_port
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_CONNECT_FAILED if is_empty else asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED,
                f"This sandbox forwards to localhost:{self._comfyui_port} only.",
            )
        forwarder = self._connection.forward_connection("127.0.0.1", self._comfyui_port)
        return cast(Awaitable[asyncssh.SSHTCPSession[bytes]], forwarder)  # as `True` would do for dest_host


def _refuse_shell(process: "asyncssh.SSHServerProcess[str]") -> None:
    process.stderr.write(NO_SHELL)
    process.exit(1)
