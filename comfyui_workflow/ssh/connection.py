"""An open connection to one instance: an SSH transport with a tunnel to ComfyUI and with SFTP.

open_connection(address, comfyui_port, options) -> Connection       one attempt
Connection
    base_url              "http://127.0.0.1:PORT" of the tunnel
    files                 RemoteFiles
    address
    comfyui_port          port of the instance to which the tunnel leads; `lead_to` changes it
    host_key_fingerprint  "SHA256:..."
    round_trip_s          measured once, when the connection was opened
    is_alive              False after the connection was lost, closed, or silent beyond the silence limit
    open_port(port, host) opens a channel to a port of the instance
    run_program(...)      runs a Python program on the instance, see programs.py
    connect(factory)      connects a protocol of an event loop to ComfyUI's port
    check_port()          raises ConnectionFailed if nothing listens on ComfyUI's port of the instance
    close()               blocks for at most about a second; idempotent
ConnectionOptions         all settings, see options.py
"""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from enum import Enum
from typing import Any

import paramiko

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ConnectionFailed, NothingListens
from comfyui_workflow.parsing.ssh_address import SshAddress
from comfyui_workflow.ssh.channel_transport import ClientProtocol, connect_channel
from comfyui_workflow.ssh.client_config import resolve
from comfyui_workflow.ssh.keepalive import supervisor
from comfyui_workflow.ssh.options import ConnectionOptions
from comfyui_workflow.ssh.programs import run_program
from comfyui_workflow.ssh.sftp.channels import SftpChannels
from comfyui_workflow.ssh.sftp.download import in_flight_bytes
from comfyui_workflow.ssh.sftp.files import RemoteFiles
from comfyui_workflow.ssh.sockets import connection_failed
from comfyui_workflow.ssh.transport import OpenTransport, open_transport
from comfyui_workflow.ssh.tunnel import Tunnel, open_tunnel

__all__ = ["Connection", "ConnectionOptions", "PortRefused", "Refusal", "open_connection"]

LOCALHOST = ("127.0.0.1", 0)
# Maximum of unread bytes in memory for each connection through the tunnel.
MOST_TUNNEL_WINDOW_BYTES = 8 * 1024 * 1024
PROGRAM_SILENCE_S = 60.0
"""A program prints something at least twice a second. Longer than a disk of an instance may hang."""
OPEN_FORBIDDEN = (1, 3)  # RFC 4254, section 5.1: administratively prohibited, unknown channel type


class Refusal(Enum):
    """Why a channel to a port of the instance was not opened; `{}` stands for the port."""

    CLOSED = "Nothing listens on port {} of the instance: is ComfyUI running there?"
    FORBIDDEN = "The SSH server of the instance does not allow a tunnel to its port {}."
    SILENT = "The instance does not answer when asked for its port {}."


class PortRefused(ConnectionFailed):
    """The connection works, but no channel to that port was opened."""

    def __init__(self, refusal: Refusal, port: int) -> None:
        super().__init__(refusal.value.format(port))
        self.refusal = refusal


class Connection:
    """Created by `open_connection`. Thread-safe."""

    def __init__(
        self,
        *,
        opened: OpenTransport,
        tunnel: Tunnel,
        files: RemoteFiles,
        address: SshAddress,
        round_trip_s: float,
        open_timeout_s: float,
    ) -> None:
        self.files = files
        self.address = address
        self.host_key_fingerprint = opened.host_key_fingerprint
        self.round_trip_s = round_trip_s
        self.base_url = f"http://127.0.0.1:{tunnel.local_port}"
        self._opened = opened
        self._tunnel = tunnel
        self._open_timeout_s = open_timeout_s
        self._closing = threading.Lock()

    @property
    def is_alive(self) -> bool:
        return self._opened.transport.is_active()

    @property
    def comfyui_port(self) -> int:
        return self._tunnel.comfyui_port

    def lead_to(self, comfyui_port: int, host: str | None = None) -> None:
        """From now on, new connections through the tunnel lead to this port of the instance. `host` is the
        address of the instance on which the port is open, if it is another than that of the ssh string."""
        self._tunnel.comfyui_host = host or self.address.comfyui_host
        self._tunnel.comfyui_port = comfyui_port

    def open_port(
        self, port: int, timeout_s: float | None = None, *, host: str | None = None
    ) -> paramiko.Channel:
        """Opens a channel to a port of the instance, on the host of the tunnel unless another one is given.
        Raises: PortRefused; ConnectionFailed."""
        try:
            return self._opened.transport.open_channel(
                "direct-tcpip",
                dest_addr=(host or self._tunnel.comfyui_host, port),
                src_addr=LOCALHOST,
                timeout=timeout_s or self._open_timeout_s,
            )
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._no_channel(port, error) from error

    def _no_channel(self, port: int, error: Exception) -> ConnectionFailed:
        if not self.is_alive:
            return ConnectionFailed(f"The connection to {self.address.label} was cut.")
        return PortRefused(_refusal_of(error), port)

    def check_port(self) -> None:
        """Checks that ComfyUI's port of the instance accepts connections.

        The tunnel itself only resets a local connection; this method gives the reason.

        Raises: ConnectionFailed; NothingListens if the port refuses connections.
        """
        try:
            self.open_port(self.comfyui_port).close()
        except PortRefused as error:
            if error.refusal is Refusal.CLOSED:
                raise NothingListens(str(error)) from error
            raise

    def run_program(
        self,
        source: bytes,
        request: Mapping[str, Any],
        *,
        stop: CancelToken,
        silence_timeout_s: float = PROGRAM_SILENCE_S,
    ) -> Iterator[Mapping[str, Any]]:
        """Runs a Python program on the instance, and yields what it prints. Raises: as
        `programs.run_program`."""
        return run_program(
            self._opened.transport,
            self.address.label,
            source,
            request,
            stop=stop,
            open_timeout_s=self._open_timeout_s,
            silence_timeout_s=silence_timeout_s,
        )

    async def connect(self, protocol_factory: Callable[[], ClientProtocol]) -> ClientProtocol:
        """Connects a protocol of the running event loop to ComfyUI's port, past the tunnel. Raises:
        PortRefused; ConnectionFailed."""
        tunnel = self._tunnel
        host, port = tunnel.comfyui_host, tunnel.comfyui_port
        try:
            async with asyncio.timeout(self._open_timeout_s):
                return await connect_channel(self._opened.transport, (host, port), protocol_factory)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._no_channel(port, error) from error

    def close(self) -> None:
        """Closes the transport and the tunnel at once, also while they are in use. Nothing is sent to the
        peer, which may be frozen."""
        with self._closing:
            self._opened.close()
            self._tunnel.close()
        supervisor.recheck()


def open_connection(address: SshAddress, comfyui_port: int, options: ConnectionOptions) -> Connection:
    """Opens a connection; makes one attempt. The address of the connection is the resolved one.

    Raises: ConnectionFailed, AuthenticationFailed, HostKeyRefused, KeyRefused (the -i file),
    InvalidAddress (the host resolves to a refused address, or the SSH configuration makes none of it),
    StoreError (the known hosts file).
    """
    address = resolve(address, options.config_file)
    with ExitStack() as on_failure:
        opened = open_transport(address, options)
        on_failure.callback(opened.close)
        channels = _open_sftp(opened, address, options)
        window_bytes = min(in_flight_bytes(channels.round_trip_s), MOST_TUNNEL_WINDOW_BYTES)
        tunnel = open_tunnel(opened.transport, address, comfyui_port, window_bytes=window_bytes)
        on_failure.pop_all()
    return Connection(
        opened=opened,
        tunnel=tunnel,
        files=RemoteFiles(channels, address.label),
        address=address,
        round_trip_s=channels.round_trip_s,
        open_timeout_s=options.connect_timeout_s,
    )


def _open_sftp(opened: OpenTransport, address: SshAddress, options: ConnectionOptions) -> SftpChannels:
    """Opens the SFTP channels.

    SFTP must be the first channel: sshd sends small packets at once (TCP_NODELAY) only after a session has
    started. A machine without SFTP can be used too: files then go through the tunnel."""

    def stop_quick_ack() -> None:
        opened.wire.uses_quick_ack = False

    try:
        return SftpChannels(
            opened.transport,
            address.label,
            on_session=stop_quick_ack,
            open_timeout_s=options.connect_timeout_s,
            silence_timeout_s=options.channel_timeout_s,
        )
    except (paramiko.SSHException, EOFError, OSError) as error:
        raise connection_failed(f"{address.label} opens no SFTP session", error) from error


def _refusal_of(error: Exception) -> Refusal:
    """If two channels are refused at once, paramiko may lose the reason; then the most common reason is
    given."""
    if isinstance(error, TimeoutError) or "timeout" in str(error).lower():
        return Refusal.SILENT
    if getattr(error, "code", None) in OPEN_FORBIDDEN:
        return Refusal.FORBIDDEN
    return Refusal.CLOSED
