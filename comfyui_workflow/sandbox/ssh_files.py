"""SFTP confined to the sandbox's root, with OpenSSH's semantics where asyncssh's differ."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, cast

import asyncssh

from comfyui_workflow.sandbox.faults import BadStorage, FaultBoard
from comfyui_workflow.sandbox.layout import Layout

WORKSPACE = Path("/workspace")
"""Parent directory of ComfyUI on a rented machine."""


class ConfinedFiles(asyncssh.SFTPServer):
    """SFTP server for the sandbox's files: the root under its real path, and its workspace also as
    /workspace, as on rented machines.

    All other paths are refused, also symbolic links to targets outside the root, and the server's own keys.
    """

    def __init__(
        self, channel: "asyncssh.SSHServerChannel[bytes]", layout: Layout, faults: FaultBoard
    ) -> None:
        super().__init__(channel)
        self._layout = layout
        self._faults = faults

    @property
    def _fault(self) -> BadStorage:
        return self._faults.now.storage

    async def stat(self, path: bytes) -> asyncssh.SFTPAttrs:
        await self._wait_while_silent("all")
        return self._with_claimed_size(asyncssh.SFTPAttrs.from_local(os.stat(self.map_path(path))))  # noqa: PTH116

    async def fstat(self, file_obj: object) -> asyncssh.SFTPAttrs:
        await self._wait_while_silent("all")
        return self._with_claimed_size(
            asyncssh.SFTPAttrs.from_local(os.fstat(cast(BinaryIO, file_obj).fileno()))
        )

    async def read(self, file_obj: object, offset: int, size: int) -> bytes:
        await self._wait_while_silent("reads", "all")
        file = cast(BinaryIO, file_obj)
        if self._fault.endless_reads:
            return b"x" * size
        file.seek(offset)
        return file.read(size) + (b"x" if self._fault.long_reads else b"")

    async def write(self, file_obj: object, offset: int, data: bytes) -> int:
        await self._wait_while_silent("reads", "all")
        file = cast(BinaryIO, file_obj)
        file.seek(offset)
        return file.write(data)

    async def _wait_while_silent(self, *silences: str) -> None:
        while self._fault.silent in silences:
            await asyncio.sleep(0.05)

    def _with_claimed_size(self, attributes: asyncssh.SFTPAttrs) -> asyncssh.SFTPAttrs:
        if self._fault.claimed_bytes is not None and not stat.S_ISDIR(attributes.permissions or 0):
            attributes.size = self._fault.claimed_bytes
        return attributes

    def map_path(self, path: bytes) -> bytes:
        """Returns the real path of a client's path. A symbolic link as the last part is not resolved, so that
        the client can remove it. Raises: SFTPPermissionDenied."""
        named = self._from_client(os.fsdecode(path))
        mapped = named.parent.resolve() / named.name if named.name != ".." else named.resolve()
        if not self._is_allowed(mapped.resolve()):
            raise asyncssh.SFTPPermissionDenied(f"The sandbox gives access to its own files only: {path!r}")
        return os.fsencode(mapped)

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        """Yields the entries of a directory, without `.` and `..`: the parent of the root is private."""
        with os.scandir(self.map_path(path)) as entries:
            for entry in entries:
                attributes = asyncssh.SFTPAttrs.from_local(entry.stat(follow_symlinks=False))
                yield asyncssh.SFTPName(entry.name, attrs=attributes)
        number = 0
        while self._fault.endless_listing:
            number += 1
            yield asyncssh.SFTPName(f"file {number}".encode(), attrs=asyncssh.SFTPAttrs(size=1))
            await asyncio.sleep(0)

    def rename(self, oldpath: bytes, newpath: bytes) -> None:
        """Renames a path, and fails if the new name exists. For a file this is atomic: it also fails if
        another process creates the name at the same moment."""
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

    def _is_allowed(self, real: Path) -> bool:
        return real.is_relative_to(self._layout.root) and not real.is_relative_to(self._layout.ssh_dir)
