"""Proves that a file is the one that ComfyUI has under a name.

How it works. A path on the instance proves nothing: a machine may have several ComfyUIs (one in its image and
one on a volume, one for each GPU), and the SSH server may see other disks than ComfyUI. Only ComfyUI itself
tells what it has: the size, the modification time and the end of the file, with one short request of `/view`.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.comfyui.file_view import ViewedFile
from comfyui_workflow.errors import RemoteFileMissing

COMPARED_BYTES = 64 * 1024
"""Bytes at the end of a file that are compared."""
_ROUNDING_S = 1
"""SFTP and HTTP report whole seconds, and servers round differently."""


@dataclass(frozen=True, kw_only=True)
class FileEnd:
    """The end of a file of ComfyUI: all of a short file, or the beginning of a longer one if ComfyUI or a
    proxy ignores the range."""

    filename: str
    viewed: ViewedFile
    """The response; its bytes are in `content`."""
    content: bytes

    @property
    def whole(self) -> ViewedFile | None:
        """The file, if the response has all of it."""
        if self.viewed.start or self.viewed.size_bytes != len(self.content):
            return None
        return replace(self.viewed, pieces=iter((self.content,)))

    def check_attributes(self, size_bytes: int, modified_s: float | None) -> None:
        """Checks that the file has this size, and was modified at `modified_s` by the clock of the instance.
        Raises: RemoteFileMissing if ComfyUI has another file."""
        if not (self._has_size(size_bytes) and self._has_time(modified_s)):
            raise self._another_file()

    def check(self, local: Path, modified_s: float | None) -> None:
        """Checks that the file has the content of `local`, too. Raises: RemoteFileMissing."""
        self.check_attributes(local.stat().st_size, modified_s)
        with local.open("rb") as file:
            file.seek(self.viewed.start)
            expected = file.read(COMPARED_BYTES)
        if self.content[: len(expected)] != expected:
            raise self._another_file()

    def _has_size(self, size_bytes: int) -> bool:
        return self.viewed.size_bytes is None or self.viewed.size_bytes == size_bytes

    def _has_time(self, modified_s: float | None) -> bool:
        if modified_s is None or self.viewed.modified_s is None:
            return True
        return abs(self.viewed.modified_s - int(modified_s)) <= _ROUNDING_S

    def _another_file(self) -> RemoteFileMissing:
        return RemoteFileMissing(f"ComfyUI has another file with the name {self.filename}")


def request_end(client: ComfyUIClient, filename: str, *, subfolder: str, folder: str) -> FileEnd:
    """Requests the end of a file. Raises: RemoteFileMissing if ComfyUI has none of this name;
    RemoteFileError or ComfyUIUnavailable if it does not tell."""
    content = bytearray()
    with client.view(filename, subfolder=subfolder, folder=folder, start=-COMPARED_BYTES) as viewed:
        for piece in viewed:
            content += piece
            if len(content) >= COMPARED_BYTES:  # a longer response is not the requested range
                break
    return FileEnd(filename=filename, viewed=viewed, content=bytes(content))
