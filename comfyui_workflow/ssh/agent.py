"""Keys of the SSH agent.

open_agent(socket_path) -> Agent | None      None: no agent runs; raises OSError, paramiko.SSHException
Agent.keys, Agent.close()
"""

import socket
from pathlib import Path
from typing import Any

import paramiko
from paramiko.agent import AgentSSH, get_agent_connection

ANSWER_S = 5.0
# An agent may ask the user before it signs.
SIGNATURE_S = 60.0


class AgentKey(paramiko.AgentKey):
    """Key of the agent. `has_refused` is set if the agent did not sign: paramiko then ends the transport."""

    has_refused = False

    def sign_ssh_data(self, data: Any, algorithm: str | None = None) -> paramiko.Message:
        try:
            return super().sign_ssh_data(data, algorithm)
        except (paramiko.SSHException, OSError):
            self.has_refused = True
            raise


class Agent(AgentSSH):
    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        connection.settimeout(ANSWER_S)
        self._connect(connection)  # type: ignore[attr-defined]
        connection.settimeout(SIGNATURE_S)
        self.keys = tuple(AgentKey(agent=self, blob=key.blob, comment=key.comment) for key in self.get_keys())

    def close(self) -> None:
        self._close()  # type: ignore[attr-defined]


def open_agent(socket_path: str | None) -> Agent | None:
    """Connects to the agent at a path, or at that of the environment (SSH_AUTH_SOCK). Raises: OSError,
    paramiko.SSHException."""
    connection = _connect(socket_path) if socket_path else get_agent_connection()
    return Agent(connection) if connection else None


def _connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(ANSWER_S)
        connection.connect(str(Path(path).expanduser()))
    except OSError:
        connection.close()
        raise
    return connection
