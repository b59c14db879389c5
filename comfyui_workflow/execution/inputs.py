"""Uploads input files to the instance: under their own names, never over another user's file, never twice.

How it works. A file is uploaded over SFTP into ComfyUI's own input directory, or else into the configured
one. Then ComfyUI is asked for the file of that name (`file_identity`): the directory may belong to another
ComfyUI, while this one has an older file of the same name. If ComfyUI has not got the file, it is uploaded
through ComfyUI.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from comfyui_workflow.concurrency import CancelToken, ParallelMap
from comfyui_workflow.errors import (
    FileRefused,
    RemoteFileError,
    RemoteFileExists,
    RemoteFileNotWritten,
    RemoteFilesSilent,
    UploadNotSaved,
)
from comfyui_workflow.execution.file_identity import request_end
from comfyui_workflow.execution.live_progress import Direction, LiveRun, Report
from comfyui_workflow.files.input_directories import files_in
from comfyui_workflow.files.sensitive_paths import LOOKED_AT_BYTES, holds_private_key
from comfyui_workflow.sessions.session import ComfyUISession
from comfyui_workflow.ssh.sftp.files import RemoteFile, RemoteFiles
from comfyui_workflow.workflows.editor.scene_views import BLANK_VIEW
from comfyui_workflow.workflows.graph import Graph, with_replaced_texts
from comfyui_workflow.workflows.input_files import FileReference, InputFiles, base_name, texts_of
from comfyui_workflow.workflows.node_definitions import Definitions

_LOGGER = logging.getLogger(__name__)
_BLANK_VIEW = Path(__file__).with_name(BLANK_VIEW)

OpenTransfer = Callable[[], AbstractContextManager[Report]]
"""Context manager around the upload of one file; it yields the progress callback."""


@dataclass(frozen=True, kw_only=True)
class _Uploaded:
    """Place of an input file on the instance."""

    name: str
    """Name below ComfyUI's input directory."""
    directory: str | None
    """The input directory; None if it is not known."""


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
    """Uploads every input to the instance: below ComfyUI's input directory, where the graph names it. Uploads
    the blank view of a scene, too, if the graph names it. Returns the graph with the names that the inputs
    have there. Raises: FileRefused if an input is no longer readable; InvalidRequest; the error of a broken
    session; Stopped."""
    files = InputFiles(_with_blank_view(graph, images))
    if not files.paths:
        return graph
    references = files.references(texts_of(graph))
    names = files.names(references)
    uploads = ParallelMap(session.connection.files.transfers_at_once, stop)

    def open_transfer(local: Path) -> AbstractContextManager[Report]:
        return live.transfer(Direction.UPLOAD, local.name, uploads.stop)

    def upload(path: str) -> _Uploaded:
        if path.endswith("/"):
            return _upload_directory(
                session, Path(path), names[path], input_dir, open_transfer, stop=uploads.stop
            )
        local = Path(path)
        return _upload_input(
            session, local, names[path], input_dir, partial(open_transfer, local), stop=uploads.stop
        )

    uploaded = {}
    with uploads.results(upload, files.paths) as results:
        for position, path in enumerate(files.paths, start=1):
            say(f"Uploading {base_name(path)} ({position} of {len(files.paths)})")
            uploaded[path] = next(results)
    needs_types = any(reference.is_path for reference in references.values())
    definitions = session.definitions() if needs_types else Definitions({})
    return _with_remote_names(graph, definitions, references, uploaded)


def _with_blank_view(graph: Graph, images: tuple[str, ...]) -> tuple[str, ...]:
    is_named = any(text == BLANK_VIEW for text in texts_of(graph))
    is_given = any(base_name(path) == BLANK_VIEW for path in images)
    return (*images, str(_BLANK_VIEW)) if is_named and not is_given else images


def _with_remote_names(
    graph: Graph,
    definitions: Definitions,
    references: Mapping[str, FileReference],
    uploaded: Mapping[str, _Uploaded],
) -> Graph:
    """Replaces the texts that name inputs. A node that takes any path (a STRING) gets the path on the
    instance in place of a path of this machine."""

    def replace(node: Mapping[str, Any], input_name: str, text: str) -> str:
        reference = references.get(text)
        if reference is None:
            return text
        place = uploaded[reference.path]
        definition = definitions.get(node["class_type"])
        declared = definition.input(input_name) if definition else None
        takes_any_path = declared is not None and declared.type == "STRING"
        if reference.is_path and takes_any_path and place.directory is not None:
            return str(PurePosixPath(place.directory) / place.name) + reference.after
        return reference.value(place.name)

    return with_replaced_texts(graph, replace)


def _upload_input(
    session: ComfyUISession,
    local: Path,
    name: str,
    input_dir: str,
    open_transfer: OpenTransfer,
    *,
    stop: CancelToken,
) -> _Uploaded:
    """Returns the place of the file. Tries SFTP first; if ComfyUI does not see the file, or if SFTP is not
    available or does not respond, ComfyUI's upload route."""
    digest = _sha256(local)
    refusals: list[RemoteFileError] = []
    for directory in _directories(session, input_dir):
        try:
            found = _upload_by_sftp(
                session.connection.files, local, name, directory, open_transfer, digest=digest, stop=stop
            )
            if _is_read_by_comfyui(session, local, directory, found, stop):
                return _Uploaded(name=found, directory=directory)
        except RemoteFilesSilent as silence:
            _LOGGER.info("%s goes through the tunnel: %s", local.name, silence)
            break
        except RemoteFileError as refusal:
            refusals.append(refusal)
    with _told_with(refusals):
        return _upload_by_http(session, local, name, open_transfer)


@contextmanager
def _told_with(refusals: Sequence[RemoteFileError]) -> Iterator[None]:
    """If neither SFTP nor ComfyUI can write a file, waiting does not help: the error has both reasons."""
    try:
        yield
    except UploadNotSaved as error:
        refusal = next((each for each in refusals if isinstance(each, RemoteFileNotWritten)), None)
        if refusal is None:
            raise
        raise RemoteFileNotWritten(f"{refusal} {error}") from error


def _upload_by_http(
    session: ComfyUISession, local: Path, name: str, open_transfer: OpenTransfer, *, replaces: bool = False
) -> _Uploaded:
    subfolder, _, filename = name.rpartition("/")
    with local.open("rb") as file, open_transfer() as report:
        report(0, os.fstat(file.fileno()).st_size)
        answer = session.client.upload(file, filename, subfolder=subfolder, replaces=replaces)
    found = f"{subfolder}/{answer}" if subfolder else answer
    return _Uploaded(name=found, directory=session.directories().input_dir)


def _upload_directory(
    session: ComfyUISession,
    local: Path,
    name: str,
    input_dir: str,
    open_transfer: Callable[[Path], AbstractContextManager[Report]],
    *,
    stop: CancelToken,
) -> _Uploaded:
    """Uploads the files of a directory. A loader reads all files that it finds there, so the directory on
    the instance has no others: if one of that name has other files, the name gets a hash of the content."""
    digests = _digests(local)
    hashed = _unique_name(name, hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest())
    remote_files = session.connection.files
    refusals: list[RemoteFileError] = []
    for directory in _directories(session, input_dir):
        try:
            found = name if _has_only(remote_files, f"{directory}/{name}", local, digests, stop) else hashed
            for relative, digest in digests.items():
                _upload_by_sftp(
                    remote_files,
                    local / relative,
                    f"{found}/{relative}",
                    directory,
                    partial(open_transfer, local / relative),
                    digest=digest,
                    stop=stop,
                )
        except RemoteFilesSilent as silence:
            _LOGGER.info("%s goes through the tunnel: %s", local.name, silence)
            break
        except RemoteFileError as refusal:
            refusals.append(refusal)
            continue
        if all(
            _is_read_by_comfyui(session, local / relative, directory, f"{found}/{relative}", stop)
            for relative in [*digests][:1]  # one is enough: the directory is ComfyUI's or not
        ):
            return _Uploaded(name=found, directory=directory)
    for relative in digests:
        stop.check()
        transfer = partial(open_transfer, local / relative)
        with _told_with(refusals):
            _upload_by_http(session, local / relative, f"{hashed}/{relative}", transfer, replaces=True)
    return _Uploaded(name=hashed, directory=session.directories().input_dir)


def _digests(local: Path) -> dict[str, str]:
    """Returns the hash of each file of a directory, by its path there. Raises: FileRefused."""
    try:
        return {each.relative_to(local).as_posix(): _sha256(each) for each in files_in(local)}
    except OSError as error:
        raise FileRefused(f"Input directory cannot be read: {local} ({error.strerror})") from error


def _has_only(
    files: RemoteFiles, remote: str, local: Path, digests: Mapping[str, str], stop: CancelToken
) -> bool:
    """True if the remote directory does not exist, or has no other files than these: an earlier attempt may
    have sent a part of them."""
    if files.stat(remote, on_wait=stop.check) is None:
        return True
    pending = [""]
    while pending:
        below = pending.pop()
        for each in files.list(f"{remote}/{below}"):
            relative = f"{below}{each.name}"
            if each.is_directory and any(name.startswith(f"{relative}/") for name in digests):
                pending.append(f"{relative}/")
            elif relative not in digests or not _has_same_content(
                files, f"{remote}/{relative}", local / relative, digests[relative], stop
            ):
                return False
    return True


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
    """True if ComfyUI has the content of `local` under this name, in the file that is in `directory`. Both
    are asked at the same time."""
    remote = str(PurePosixPath(directory) / name)
    subfolder, _, filename = name.rpartition("/")
    try:
        with session.connection.files.opening(remote, progress=lambda *_: stop.check()) as opening:
            end = request_end(session.client, filename, subfolder=subfolder, folder="input")
            modified_at = opening.attributes().modified_at
        end.check(local, modified_at.timestamp())
    except RemoteFileError:
        return False
    return True


def _upload_by_sftp(
    files: RemoteFiles,
    local: Path,
    name: str,
    directory: str,
    open_transfer: OpenTransfer,
    *,
    digest: str,
    stop: CancelToken,
) -> str:
    """Uploads by SFTP. Uses the wanted name, which may have directories, if it is free or has the same
    content; else a name that contains a hash of the content."""
    candidates = (name, _unique_name(name, digest))
    paths = [str(PurePosixPath(directory) / candidate) for candidate in candidates]
    found_directory, *found = files.stat_all((directory, *paths), on_wait=stop.check)
    if found_directory is None:
        raise RemoteFileError(f"there is no directory {directory} on the instance")
    if "/" in name:
        files.make_directory(paths[0].rpartition("/")[0])
    for candidate, remote, known in zip(candidates, paths, found, strict=True):
        if _is_same_content(files, remote, known, local, digest, stop=stop):
            return candidate
        try:
            with open_transfer() as report:
                files.upload(local, remote, progress=report)
        except RemoteFileExists:
            # another run may have uploaded the same file at the same time
            if _has_same_content(files, remote, local, digest, stop):
                return candidate
        else:
            return candidate
    raise RemoteFileError(f"{name}: no free name in {directory} on the instance")


def _has_same_content(files: RemoteFiles, remote: str, local: Path, digest: str, stop: CancelToken) -> bool:
    known = files.stat(remote, on_wait=stop.check)
    return _is_same_content(files, remote, known, local, digest, stop=stop)


def _is_same_content(
    files: RemoteFiles, remote: str, known: RemoteFile | None, local: Path, digest: str, *, stop: CancelToken
) -> bool:
    """True if the remote file has the same content; `known` are its attributes, None if there is none. The
    hash is read last, because it is the most expensive check."""
    if known is None or known.size_bytes != local.stat().st_size:
        return False
    return files.sha256(remote, found=known, on_wait=stop.check) == digest


def _unique_name(name: str, digest: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(f"{path.stem}-{digest[:12]}{path.suffix}"))


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
