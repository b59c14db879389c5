"""SFTP confined to the sandbox's root, with OpenSSH's semantics where asyncssh's differ."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh

from comfyui_workflow.sandbox.layout import Layout

WORKSPACE = Path("/workspace")
"""Where a rented machine has its ComfyUI."""


class ConfinedFiles(asyncssh.SFTPServer):
    """What a client sees: the root under its real path, and its workspace as /workspace, as renters know it.

    Everything else is refused, symbolic links that lead out of the root and the server's own keys included.
    """

    def __init__(self, channel: "asyncssh.SSHServerChannel[bytes]", layout: Layout) -> None:
        super().__init__(channel)
        self._layout = layout

    def map_path(self, path: bytes) -> bytes:
        """The real path of what a client names; a link in last place is kept, so that it can be removed."""
        named = self._from_client(os.fsdecode(path))
        mapped = named.parent.resolve() / named.name if named.name != ".." else named.resolve()
        if not self._is_ours(mapped.resolve()):
            raise asyncssh.SFTPPermissionDenied(f"The sandbox gives access to its own files only: {path!r}")
        return os.fsencode(mapped)

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        """Without `.` and `..`: the root's parent has nothing to tell."""
        with os.scandir(self.map_path(path)) as entries:
            for entry in entries:
                attributes = asyncssh.SFTPAttrs.from_local(entry.stat(follow_symlinks=False))
                yield asyncssh.SFTPName(entry.name, attrs=attributes)

    def rename(self, oldpath: bytes, newpath: bytes) -> None:
        """Fails where the new name is taken, also when somebody else takes it at this very moment."""
        old, new = (Path(os.fsdecode(self.map_path(path))) for path in (oldpath, newpath))
        if old.is_file() and not old.is_symlink():
            new.hardlink_to(old)
            old.unlink()
        elif os.path.lexists(new):
            raise asyncssh.SFTPFileAlreadyExists("File exists")
        else:
            old.rename(new)

    def _from_client(self, path: str) -> Path:
        named = self._layout.root / path
        if named.is_relative_to(WORKSPACE):
            return self._layout.workspace / named.relative_to(WORKSPACE)
        return named

    def _is_ours(self, real: Path) -> bool:
        return real.is_relative_to(self._layout.root) and not real.is_relative_to(self._layout.ssh_dir)
