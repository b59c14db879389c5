"""Forwards a port of 127.0.0.1 to ComfyUI's port on the instance: sshtunnel over an existing transport.

open_tunnel(transport, address, comfyui_port, window_bytes) -> Tunnel
    tunnel.local_port
    tunnel.comfyui_host, tunnel.comfyui_port     may be changed: new connections lead there
    tunnel.close()      closes the transport too

How it works: sshtunnel provides only the listener, its threads and the channels. Its own code to connect, log
in, check and keep alive is not used: it would check no host key, listen on all interfaces, read ~/.ssh/config
and try every key on a new connection. Its copy loop is replaced too: it waits with select(), which fails in a
process with more than 1024 open files, and it reads a large window in small pieces, each of which moves the
rest of the buffer. Its listener is replaced by one with a longer backlog: the kernel drops connections beyond
it, and their clients try again only after a second. Only this server may use the port: connections of other
users of this machine are closed, if the system tells whose they are.
"""

import logging
import select
import socket
from typing import Any

import paramiko
import sshtunnel

from comfyui_workflow.access.peer_users import is_of_another_user
from comfyui_workflow.errors import ConnectionFailed
from comfyui_workflow.parsing.ssh_address import SshAddress
from comfyui_workflow.ssh.sockets import connection_failed

# sshtunnel logs each refused connection. The client of that connection logs a better message.
_LOGGER = logging.getLogger("comfyui_workflow.ssh.tunnel")
_LOGGER.setLevel(logging.CRITICAL)

LOCAL_READ_BYTES = 64 * 1024
READ_ALL_BYTES = 1 << 30
POLL_TIMEOUT_MS = 5_000
# A channel that is ready has data to read. If the read takes longer than this, the connection is closed.
READY_LIMIT_S = 5.0
BACKLOG = 512


class Listener(sshtunnel._ThreadingForwardServer):  # type: ignore[misc]
    """Accepts the local connections of a tunnel."""

    request_queue_size = BACKLOG

    def get_request(self) -> tuple[socket.socket, Any]:
        """Without TCP_NODELAY the end of a response waits until the client acknowledges its beginning, which
        takes up to 40 ms."""
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address


class Tunnel(sshtunnel.SSHTunnelForwarder):  # type: ignore[misc]
    """A tunnel over an authenticated transport; never opens a transport itself."""

    def __init__(self, transport: paramiko.Transport, address: SshAddress, comfyui_port: int) -> None:
        super().__init__(
            (address.host, address.port),
            ssh_config_file=None,
            ssh_username=address.user,
            ssh_password="unused",  # noqa: S106 - sshtunnel requires a password and never uses it
            allow_agent=False,
            host_pkey_directories=[],
            local_bind_address=("127.0.0.1", 0),
            remote_bind_address=(address.comfyui_host, comfyui_port),
            set_keepalive=0.0,
            logger=_LOGGER,
        )
        self._transport = transport
        self.local_port = 0
        self.comfyui_host = address.comfyui_host
        self.comfyui_port = comfyui_port
        """Where new connections lead, as seen from the instance."""

    def close(self) -> None:
        """Closes the listener and every open connection at once, also with a frozen peer."""
        self._drop_idle_listeners()
        self.stop(force=True)

    def _drop_idle_listeners(self) -> None:
        """Closes the listeners that have no thread. If the transport is lost while the tunnel starts, a
        listener without a thread is left, and `stop` would wait for ever for the end of that thread."""
        idle = [each for each in self._server_list if not self.tunnel_is_up[each.local_address]]
        for listener in idle:
            self._server_list.remove(listener)
            listener.server_close()

    def _get_transport(self) -> Any:
        """sshtunnel calls this only after the existing transport is closed."""
        raise ConnectionFailed("Failed to create SSH tunnel: the connection was cut while it was opened.")

    def _make_ssh_forward_server_class(self, remote_address: tuple[str, int]) -> type[Listener]:
        return Listener

    def _make_ssh_forward_handler_class(self, remote_address: tuple[str, int]) -> Any:
        tunnel = self

        class Handler(super()._make_ssh_forward_handler_class(remote_address)):  # type: ignore[misc]
            def setup(self) -> None:
                self.remote_address = (tunnel.comfyui_host, tunnel.comfyui_port)

            def _redirect(self, channel: paramiko.Channel) -> None:
                if not is_of_another_user(self.request):
                    copy_both_ways(self.request, channel)

        return Handler


def open_tunnel(
    transport: paramiko.Transport, address: SshAddress, comfyui_port: int, *, window_bytes: int
) -> Tunnel:
    """Raises: ConnectionFailed."""
    transport.default_window_size = window_bytes
    tunnel = Tunnel(transport, address, comfyui_port)
    try:
        tunnel.start()
        tunnel.local_port = int(tunnel.local_bind_port)  # not available after the connection is closed
    except (sshtunnel.BaseSSHTunnelForwarderError, OSError) as error:
        tunnel.close()
        raise connection_failed("no local port for the tunnel", error) from error
    return tunnel


def copy_both_ways(local: socket.socket, channel: paramiko.Channel) -> None:
    """Copies data in both directions until one side ends. Raises: OSError."""
    channel.settimeout(READY_LIMIT_S)
    buffer = memoryview(bytearray(LOCAL_READ_BYTES))  # one for all reads: new ones would fragment the memory
    poll = select.poll()
    poll.register(local, select.POLLIN)
    poll.register(channel, select.POLLIN)
    while channel.active:
        ready = {descriptor for descriptor, _ in poll.poll(POLL_TIMEOUT_MS)}
        if local.fileno() in ready:
            count = local.recv_into(buffer)
            if not count:
                return
            _send_all(channel, bytes(buffer[:count]))
        if channel.fileno() in ready:
            data = channel.recv(READ_ALL_BYTES)
            if not data:
                return
            local.sendall(data)


def _send_all(channel: paramiko.Channel, data: bytes) -> None:
    """Sends without a timeout, also if the instance reads slowly: the local client has timeouts of its
    own."""
    channel.settimeout(None)
    channel.sendall(data)
    channel.settimeout(READY_LIMIT_S)
