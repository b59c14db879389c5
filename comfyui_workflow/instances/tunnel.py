"""A port of 127.0.0.1 that leads to ComfyUI's port on the instance: sshtunnel, over a transport of ours.

open_tunnel(transport, address, comfyui_port) -> Tunnel
    tunnel.local_port
    tunnel.close()      closes the transport too

sshtunnel's own ways to connect, log in, check and stay alive are not used: it would check no host key, listen
on all interfaces, read ~/.ssh/config and try every key on a new connection. What it is trusted with is the
listener and the copying.
"""

import logging
from typing import Any

import paramiko
import sshtunnel

from comfyui_workflow.errors import ConnectionFailed
from comfyui_workflow.instances.address import SshAddress
from comfyui_workflow.instances.sockets import connection_failed

# sshtunnel tells of each refused local connection; who made that connection tells it better.
_LOGGER = logging.getLogger("comfyui_workflow.ssh.tunnel")
_LOGGER.setLevel(logging.CRITICAL)


class Tunnel(sshtunnel.SSHTunnelForwarder):  # type: ignore[misc]
    """Rides on a transport that is already authenticated; never opens one."""

    def __init__(self, transport: paramiko.Transport, address: SshAddress, comfyui_port: int) -> None:
        super().__init__(
            (address.host, address.port),
            ssh_config_file=None,
            ssh_username=address.user,
            ssh_password="unused",  # noqa: S106 - it insists on one, and never gets to use it
            allow_agent=False,
            host_pkey_directories=[],
            local_bind_address=("127.0.0.1", 0),
            remote_bind_address=(address.comfyui_host, comfyui_port),
            set_keepalive=0.0,
            logger=_LOGGER,
        )
        self._transport = transport

    @property
    def local_port(self) -> int:
        return int(self.local_bind_port)

    def close(self) -> None:
        """Also with open connections, also with a frozen peer: everybody is cut off at once."""
        self.stop(force=True)

    def _get_transport(self) -> Any:
        """Asked for only when ours is dead already."""
        raise ConnectionFailed("Failed to create SSH tunnel: the connection was cut while it was opened.")


def open_tunnel(transport: paramiko.Transport, address: SshAddress, comfyui_port: int) -> Tunnel:
    """Raises: ConnectionFailed."""
    tunnel = Tunnel(transport, address, comfyui_port)
    try:
        tunnel.start()
    except (sshtunnel.BaseSSHTunnelForwarderError, OSError) as error:
        tunnel.close()
        raise connection_failed("no local port for the tunnel", error) from error
    return tunnel
