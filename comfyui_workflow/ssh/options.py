"""Settings of SSH connections, as one argument."""

from dataclasses import dataclass
from pathlib import Path

from comfyui_workflow.ssh.keys import KeySearch
from comfyui_workflow.ssh.known_hosts import KnownHosts


@dataclass(frozen=True, kw_only=True)
class ConnectionOptions:
    """`allowed_key_directories=None`: -i may name any file. `config_file` is the SSH configuration of the
    user (~/.ssh/config); None reads none. Link-local hosts are always refused."""

    known_hosts: KnownHosts
    key_file: Path | None = None
    key_passphrase: str | None = None
    key_directory: Path | None = Path("~/.ssh")  # id_ed25519, id_ecdsa, id_rsa in it are tried too
    allowed_key_directories: tuple[Path, ...] | None = None
    use_agent: bool = False
    config_file: Path | None = None
    pinned_fingerprint: str | None = None
    allow_loopback_hosts: bool = True
    connect_timeout_s: float = 10.0  # for each of: name and TCP, banner, handshake, each key, each channel
    channel_timeout_s: float = 20.0  # SFTP channel without a byte; a dead connection is noticed sooner
    keepalive_interval_s: float = 5.0
    silence_limit_s: float = 15.0

    @property
    def key_search(self) -> KeySearch:
        return KeySearch(
            configured=self.key_file,
            passphrase=self.key_passphrase,
            directory=self.key_directory,
            allowed_directories=self.allowed_key_directories,
            use_agent=self.use_agent,
        )
