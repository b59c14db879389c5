"""Uploads input files to the instance: under their own names, never over another user's file, never twice.

How it works. A file is uploaded over SFTP into ComfyUI's own input directory, or else into the configured
one. Then ComfyUI is asked for the file of that name (`file_identity`): the directory may belong to another
ComfyUI, while this one has an older file of the same name. If ComfyUI has not got the file, it is uploaded
through ComfyUI.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path, PurePosixPath

from comfyui_workflow.concurrency import CancelToken, ParallelMap
from comfyui_workflow.errors import (
    FileRefused,
    RemoteFileError,
    RemoteFileExists,
    RemoteFilesSilent,
)
from comfyui_workflow.execution.file_identity import check_identity
from comfyui_workflow.execution.live_progress import Direction, LiveRun, Report
from comfyui_workflow.files.sensitive_paths import LOOKED_AT_BYTES, holds_private_key
from comfyui_workflow.sessions.session import ComfyUISession
from comfyui_workflow.ssh.sftp.files import RemoteFiles
from comfyui_workflow.workflows.graph import Graph, with_renamed_input

_LOGGER = logging.getLogger(__name__)

OpenTransfer = Callable[[], AbstractContextManager[Report]]
"""Context manager around the upload of one file; it yields the progress callback."""


def upload_inputs(
    session: ComfyUISession,
    graph: Graph,
    images: tuple[str, ...],
    input_dir: str,
    *,
    say: Callable[[str], None],
    stop: CancelToken,
    live: LiveRun,
) -> Graph:
    """Uploads every image to the instance. Returns the graph with the names that the images have there.
    Raises: FileRefused if an image is no longer readable; the error of a broken session; Stopped."""
    uploads = ParallelMap(session.connection.files.transfers_at_once, stop)

    def upload(local: Path) -> str:
        open_transfer = partial(live.transfer, Direction.UPLOAD, local.name, uploads.stop)
        return _upload_input(session, local, input_dir, open_transfer, uploads.stop)

    with uploads.results(upload, [Path(image) for image in images]) as remote_names:
        for position, local in enumerate(map(Path, images), start=1):
            say(f"Uploading {local.name} ({position} of {len(images)})")
            remote_name = next(remote_names)
            if remote_name != local.name:
                graph = with_renamed_input(graph, local.name, remote_name)
    return graph


def _upload_input(
    session: ComfyUISession, local: Path, input_dir: str, open_transfer: OpenTransfer, stop: CancelToken
) -> str:
    """Returns the name of the file in ComfyUI's input directory. Tries SFTP first; if ComfyUI does not see
    the file, or if SFTP is not available or does not respond, ComfyUI's upload route."""
    digest = _sha256(local)
    for directory in _directories(session, input_dir):
        try:
            name = _upload_by_sftp(
                session.connection.files, local, directory, open_transfer, digest=digest, stop=stop
            )
            if _is_read_by_comfyui(session, local, directory, name, stop):
                return name
        except RemoteFilesSilent as silence:
            _LOGGER.info("%s goes through the tunnel: %s", local.name, silence)
            break
        except RemoteFileError:
            continue
    with local.open("rb") as file, open_transfer() as report:
        report(0, os.fstat(file.fileno()).st_size)
        return session.client.upload(file, local.name)


def _directories(session: ComfyUISession, configured: str) -> Iterator[str]:
    """The directories to try: ComfyUI's own, then the configured one."""
    own = session.directories().input_dir
    if own is not None:
        yield own
    if configured != own:
        yield configured


def _is_read_by_comfyui(
    session: ComfyUISession, local: Path, directory: str, name: str, stop: CancelToken
) -> bool:
    """True if ComfyUI has the content of `local` under this name, in the file that is in `directory`."""
    remote = session.connection.files.stat(str(PurePosixPath(directory) / name), on_wait=stop.check)
    modified_s = None if remote is None else remote.modified_at.timestamp()
    subfolder, _, filename = name.rpartition("/")
    try:
        check_identity(
            session.client, local, filename, subfolder=subfolder, folder="input", modified_s=modified_s
        )
    except RemoteFileError:
        return False
    return True


def _upload_by_sftp(
    files: RemoteFiles,
    local: Path,
    directory: str,
    open_transfer: OpenTransfer,
    *,
    digest: str,
    stop: CancelToken,
) -> str:
    """Uploads by SFTP. Uses the file's own name if it is free or has the same content; else a name that
    contains a hash of the content."""
    if files.stat(directory, on_wait=stop.check) is None:
        raise RemoteFileError(f"there is no directory {directory} on the instance")
    for name in (local.name, _unique_name(local.name, digest)):
        remote = str(PurePosixPath(directory) / name)
        if _has_same_content(files, remote, local, digest, stop):
            return name
        try:
            with open_transfer() as report:
                files.upload(local, remote, progress=report)
        except RemoteFileExists:
            # another run may have uploaded the same file at the same time
            if _has_same_content(files, remote, local, digest, stop):
                return name
        else:
            return name
    raise RemoteFileError(f"{local.name}: no free name in {directory} on the instance")


def _has_same_content(files: RemoteFiles, remote: str, local: Path, digest: str, stop: CancelToken) -> bool:
    """True if the remote file has the same content. The hash is read last, because it is the most expensive
    check."""
    known = files.stat(remote, on_wait=stop.check)
    if known is None or known.size_bytes != local.stat().st_size:
        return False
    return files.sha256(remote, on_wait=stop.check) == digest


def _unique_name(name: str, digest: str) -> str:
    path = PurePosixPath(name)
    return f"{path.stem}-{digest[:12]}{path.suffix}"


def _sha256(local: Path) -> str:
    """Also checks again for private keys: the run may have waited for a long time since the first check."""
    try:
        with local.open("rb") as file:
            if holds_private_key(file.read(LOOKED_AT_BYTES)):
                raise FileRefused(f"Input image is not allowed: {local} has a private key in it")
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileRefused(f"Input image cannot be read: {local} ({error.strerror})") from error
