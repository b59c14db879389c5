"""Input files on their way up: under their own names, never over somebody else's file, never twice."""

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
from comfyui_workflow.execution.live_progress import Direction, LiveRun, Report
from comfyui_workflow.files.sensitive_paths import LOOKED_AT_BYTES, holds_private_key
from comfyui_workflow.sessions.session import ComfyUISession
from comfyui_workflow.ssh.sftp.files import RemoteFiles
from comfyui_workflow.workflows.graph import Graph, with_renamed_input

_LOGGER = logging.getLogger(__name__)

Sending = Callable[[], AbstractContextManager[Report]]
"""Around the sending of one file, so that it is told how far that is."""


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
    """Bring every image to the instance; the graph that names each as it is called there.
    Raises: FileRefused when one is not readable any more; what the session raises when it breaks; Stopped."""
    crew = ParallelMap(session.connection.files.transfers_at_once, stop)

    def upload(local: Path) -> str:
        sending = partial(live.transfer, Direction.UPLOAD, local.name, crew.stop)
        return _upload_input(session, local, input_dir, sending, crew.stop)

    with crew.results(upload, [Path(image) for image in images]) as remote_names:
        for position, local in enumerate(map(Path, images), start=1):
            say(f"Uploading {local.name} ({position} of {len(images)})")
            remote_name = next(remote_names)
            if remote_name != local.name:
                graph = with_renamed_input(graph, local.name, remote_name)
    return graph


def _upload_input(
    session: ComfyUISession, local: Path, input_dir: str, sending: Sending, stop: CancelToken
) -> str:
    """The name the file has in ComfyUI's input directory. SFTP first; where ComfyUI does not see what
    arrived, its own directory; where there is no way by SFTP, or it stands still, its upload route."""
    digest = _sha256(local)
    for directory in _directories(session, input_dir):
        try:
            name = _place(session.connection.files, local, directory, sending, digest=digest, stop=stop)
        except RemoteFilesSilent as silence:
            _LOGGER.info("%s goes through the tunnel: %s", local.name, silence)
            break
        except RemoteFileError:
            continue
        if session.client.has_file(name, folder="input"):
            return name
    with local.open("rb") as file, sending() as report:
        report(0, os.fstat(file.fileno()).st_size)
        return session.client.upload(file, local.name)


def _directories(session: ComfyUISession, configured: str) -> Iterator[str]:
    """Where to try, ComfyUI's own word last: asking costs round trips, and is rarely needed."""
    yield configured
    own = session.directories().input_dir
    if own is not None and own != configured:
        yield own


def _place(
    files: RemoteFiles,
    local: Path,
    directory: str,
    sending: Sending,
    *,
    digest: str,
    stop: CancelToken,
) -> str:
    """Its own name if that is free or holds the same content; else a name that tells the content."""
    if files.stat(directory, heed=stop.check) is None:
        raise RemoteFileError(f"there is no directory {directory} on the instance")
    for name in (local.name, _unique_name(local.name, digest)):
        remote = str(PurePosixPath(directory) / name)
        if _is_there(files, remote, local, digest, stop):
            return name
        try:
            with sending() as report:
                files.upload(local, remote, progress=report)
        except RemoteFileExists:
            if _is_there(files, remote, local, digest, stop):  # another run was quicker
                return name
        else:
            return name
    raise RemoteFileError(f"{local.name}: no free name in {directory} on the instance")


def _is_there(files: RemoteFiles, remote: str, local: Path, digest: str, stop: CancelToken) -> bool:
    """Whether the remote file has the same content. Reading it back is the last resort."""
    known = files.stat(remote, heed=stop.check)
    if known is None or known.size_bytes != local.stat().st_size:
        return False
    return files.sha256(remote, heed=stop.check) == digest


def _unique_name(name: str, digest: str) -> str:
    path = PurePosixPath(name)
    return f"{path.stem}-{digest[:12]}{path.suffix}"


def _sha256(local: Path) -> str:
    """Once more a look for keys: the run may have waited for long since its files were looked at."""
    try:
        with local.open("rb") as file:
            if holds_private_key(file.read(LOOKED_AT_BYTES)):
                raise FileRefused(f"Input image is not allowed: {local} has a private key in it")
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileRefused(f"Input image cannot be read: {local} ({error.strerror})") from error
