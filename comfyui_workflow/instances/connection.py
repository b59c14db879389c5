"""An open way to one instance: one SSH transport with a tunnel to its ComfyUI and its files.

open_connection(address, comfyui_port, options) -> Connection       one attempt; see retry.py
Connection
    base_url              "http://127.0.0.1:PORT" of the tunnel
    files                 RemoteFiles
    address, comfyui_port
    host_key_fingerprint  "SHA256:..."
    round_trip_s          measured once, when it was opened
    is_alive              False once cut, closed, or silent for longer than the liveness deadline
    check_port()          raises ConnectionFailed when nothing listens on ComfyUI's port of the instance
    close()               never blocks for longer than about a second; idempotent
"""

from dataclasses import dataclass
from pathlib import Path

from comfyui_workflow.instances.address import SshAddress
from comfyui_workflow.instances.files import RemoteFiles
from comfyui_workflow.instances.host_keys import KnownHosts


@dataclass(frozen=True, kw_only=True)
class ConnectionOptions:
    """How connections are opened. `allowed_key_directories=None` means that -i may name any file."""

    known_hosts: KnownHosts
    key_file: Path | None = None
    key_passphrase: str | None = None
    key_directory: Path | None = Path("~/.ssh")  # its id_ed25519, id_ecdsa and id_rsa are tried too
    allowed_key_directories: tuple[Path, ...] | None = None
    use_agent: bool = False
    pinned_fingerprint: str | None = None
    allow_loopback_hosts: bool = True
    connect_timeout_s: float = 10.0
    channel_timeout_s: float = 30.0
    keepalive_interval_s: float = 5.0
    silence_limit_s: float = 15.0


class Connection:
    base_url: str
    files: RemoteFiles
    address: SshAddress
    comfyui_port: int
    host_key_fingerprint: str
    round_trip_s: float

    @property
    def is_alive(self) -> bool:
        raise NotImplementedError

    def check_port(self) -> None:
        """Raises: ConnectionFailed when nothing listens on ComfyUI's port of the instance."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


def open_connection(address: SshAddress, comfyui_port: int, options: ConnectionOptions) -> Connection:
    """Raises: ConnectionFailed, AuthenticationFailed, HostKeyRefused, FileRefused (the -i file)."""
    raise NotImplementedError
