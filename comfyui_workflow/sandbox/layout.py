"""Directory layout of a sandbox: a ComfyUI as on a rented machine, and the keys of its SSH server.

ROOT/workspace/ComfyUI/{input,output,temp}   the ComfyUI
ROOT/ssh/{host_key,client_key}[.pub]         kept across restarts, so that the sandbox stays the same machine
"""

from dataclasses import dataclass
from pathlib import Path

import asyncssh

from comfyui_workflow.sandbox.node import Folders


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Host key of the server, and the only client key that it accepts."""

    host_key: asyncssh.SSHKey
    client_key: asyncssh.SSHKey


class Layout:
    """The paths below one root. Only `make` creates files."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).expanduser().resolve()
        self.workspace = self.root / "workspace"
        self.ssh_dir = self.root / "ssh"
        self.client_key_path = self.ssh_dir / "client_key"
        comfyui = self.workspace / "ComfyUI"
        self.folders = Folders(
            input_dir=comfyui / "input", output_dir=comfyui / "output", temp_dir=comfyui / "temp"
        )

    def make(self) -> Keys:
        """Creates missing directories and keys, and returns the keys."""
        for folder in (self.folders.input_dir, self.folders.output_dir, self.folders.temp_dir):
            folder.mkdir(parents=True, exist_ok=True)
        self.ssh_dir.mkdir(mode=0o700, exist_ok=True)
        return Keys(
            host_key=_kept_key(self.ssh_dir / "host_key", comment="sandbox host key"),
            client_key=_kept_key(self.client_key_path, comment="sandbox client key"),
        )


def _kept_key(path: Path, *, comment: str) -> asyncssh.SSHKey:
    """Reads the key from the file, and creates it at the first start. The mode is 0600: ssh refuses a private
    key that others can read."""
    if not path.exists():
        key = asyncssh.generate_private_key("ssh-ed25519", comment=comment)
        path.with_name(f"{path.name}.pub").write_bytes(key.export_public_key())
        _write_private(path, key.export_private_key())
    path.chmod(0o600)
    return asyncssh.read_private_key(path)


def _write_private(path: Path, content: bytes) -> None:
    """Writes the file atomically: a start that is killed must not leave a partial key."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    part.write_bytes(content)
    part.rename(path)
