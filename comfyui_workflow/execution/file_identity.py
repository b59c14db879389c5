"""Proves that a file is the one that ComfyUI has under a name.

How it works. A path on the instance proves nothing: a machine may have several ComfyUIs (one in its image and
one on a volume, one for each GPU), and the SSH server may see other disks than ComfyUI. Only ComfyUI itself
tells what it has: the size, the modification time and the end of the file, with one short request of `/view`.
"""

from pathlib import Path

from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.comfyui.file_view import ViewedFile
from comfyui_workflow.errors import RemoteFileMissing

COMPARED_BYTES = 64 * 1024
"""Bytes at the end of a file that are compared."""
_ROUNDING_S = 1
"""SFTP and HTTP report whole seconds, and servers round differently."""


def check_identity(
    client: ComfyUIClient,
    local: Path,
    filename: str,
    *,
    subfolder: str,
    folder: str,
    modified_s: float | None,
) -> int | None:
    """Checks that ComfyUI has the content of `local` under this name, modified at `modified_s` by the clock
    of the instance. Returns the exact modification time in nanoseconds, if ComfyUI tells it. Raises:
    RemoteFileMissing if ComfyUI has another file or none; RemoteFileError or ComfyUIUnavailable if it does
    not tell."""
    with client.view(filename, subfolder=subfolder, folder=folder, start=-COMPARED_BYTES) as viewed:
        if not (_has_time(viewed, modified_s) and _has_content(viewed, local)):
            raise RemoteFileMissing(f"ComfyUI has another file with the name {filename}")
        return viewed.modified_ns


def _has_time(viewed: ViewedFile, modified_s: float | None) -> bool:
    if modified_s is None or viewed.modified_s is None:
        return True
    return abs(viewed.modified_s - int(modified_s)) <= _ROUNDING_S


def _has_content(viewed: ViewedFile, local: Path) -> bool:
    """Compares the size and the received bytes: all of a short file, the end of a longer one, or its
    beginning if ComfyUI or a proxy ignores the range."""
    size_bytes = local.stat().st_size
    if viewed.size_bytes is not None and viewed.size_bytes != size_bytes:
        return False
    with local.open("rb") as file:
        file.seek(viewed.start)
        left_bytes = min(COMPARED_BYTES, size_bytes - viewed.start)
        for piece in viewed:
            expected = file.read(min(left_bytes, len(piece)))
            if piece[: len(expected)] != expected:
                return False
            left_bytes -= len(expected)
            if left_bytes <= 0:
                break
    return left_bytes <= 0
