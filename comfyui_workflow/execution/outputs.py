"""Downloads output files: complete, once, made by this run, never over a different file, never outside the
directory.

How it works. A file has several sources: SFTP from ComfyUI's own directory, SFTP from the configured
directory, and ComfyUI's `/view` through the tunnel. A file that came over SFTP is compared with the file that
ComfyUI has (`file_identity`): the directory may belong to another ComfyUI. ComfyUI is asked while the file is
being opened, so this costs no round trip. If a source fails, or its file is the wrong one, the next source is
tried.
"""

import errno
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from comfyui_workflow.comfyui.file_view import ViewedFile
from comfyui_workflow.comfyui.output_locations import is_outside
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.delivery.image_conversion import NotConverted, convert_image, is_convertible
from comfyui_workflow.errors import (
    ComfyUIUnavailable,
    RemoteFileError,
    RemoteFileMissing,
    RemoteFileOverwritten,
    RemoteFileReplaced,
    RemoteFilesSilent,
    StoreError,
)
from comfyui_workflow.execution import sent_pictures
from comfyui_workflow.execution.file_identity import FileEnd, request_end
from comfyui_workflow.execution.live_progress import Direction, LiveRun, Report
from comfyui_workflow.execution.output_origin import OriginCheck, WriteTime
from comfyui_workflow.files.atomic_placement import (
    check_complete,
    flush_placed,
    place_atomically,
    safe_relative_path,
)
from comfyui_workflow.files.partial_files import LocalPart, exclusive_part, is_kept, remove
from comfyui_workflow.files.truncation_check import CUT_SHORT, EMPTY
from comfyui_workflow.runs.model import OutputFile, Run
from comfyui_workflow.sessions.session import ComfyUISession
from comfyui_workflow.ssh.sftp.files import RemoteFile, version_of

NOT_SAFE = "The instance gave it a name that is not safe to write here"
_SENT_ONLY = "it came over the websocket only, and is not on this machine any more"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_GONE = (RemoteFileMissing, RemoteFileReplaced, RemoteFileOverwritten)
_MOST_NAMED = 5
_KEPT_FREE_BYTES = 64 * 1024 * 1024
"""Disk space that a response without a length may not use."""


class OutputFetcher:
    """Downloads the outputs of one run over one session. Several threads may download different outputs."""

    def __init__(self, session: ComfyUISession, run: Run, stop: CancelToken, live: LiveRun) -> None:
        self._session = session
        self._run = run
        self._stop = stop
        self._live = live
        self._silence: RemoteFilesSilent | None = None
        self.gone: list[OutputFile] = []
        """Outputs that ComfyUI took from its cache, whose files the instance no longer has."""
        self._origin = OriginCheck(session, run)

    def fetch(self, output: OutputFile) -> OutputFile:
        """Returns the output with a `local_path`, or with an `error` that gives the reason. Raises:
        StoreError while the local disk does not accept the file; the error of a broken session."""
        relative = safe_relative_path(output)
        if relative is None:
            return replace(output, error=NOT_SAFE, is_lost=True)
        if output.folder == sent_pictures.FOLDER:
            return self._fetch_sent(output, Path(self._run.request.output_dir) / relative)
        part = part_of(self._run, output)
        with exclusive_part(part, self._stop):
            try:
                return self._fetch_with_retry(output, part, Path(self._run.request.output_dir) / relative)
            except RemoteFileError as error:
                if output.is_cached and isinstance(error, _GONE):
                    self.gone.append(output)
                remove(part)  # a retry may come much later, and the run ends now
                is_lost = isinstance(error, RemoteFileOverwritten)
                return replace(output, error=str(error), is_lost=is_lost)
            except StoreError as error:
                remove(part)
                return replace(output, error=_permanent_error(error, error.__cause__))
            except OSError as error:
                remove(part)
                trouble = StoreError(f"It cannot be written to {part.parent}: {error.strerror}")
                return replace(output, error=_permanent_error(trouble, error))
            finally:
                if not is_kept(part):
                    remove(part)

    def _fetch_sent(self, output: OutputFile, target: Path) -> OutputFile:
        """Names a picture that came over the websocket. Its hidden file stays until the run has ended: there
        is no other source."""
        part = sent_pictures.file_of(self._run, output)
        try:
            check_complete(part, output)
            return self._placed(output, part, target, None)
        except FileNotFoundError:
            return replace(output, error=_SENT_ONLY, is_lost=True)
        except RemoteFileError as error:
            return replace(output, error=str(error), is_lost=True)
        except OSError as error:
            trouble = StoreError(f"It cannot be written to {part.parent}: {error.strerror}")
            return replace(output, error=_permanent_error(trouble, error))

    def _fetch_with_retry(self, output: OutputFile, part: Path, target: Path) -> OutputFile:
        """Tries a second time if another process removes the partial file during the download: a cleanup, or
        a second server on a copy of the data. Raises: FileNotFoundError if that happens twice."""
        try:
            return self._fetch(output, part, target)
        except FileNotFoundError:
            return self._fetch(output, part, target)

    def _fetch(self, output: OutputFile, part: Path, target: Path) -> OutputFile:
        part.parent.mkdir(parents=True, exist_ok=True)
        remote_path = self._download(output, part)
        self._stop.check()
        placed = self._placed(output, part, target, remote_path)
        remove(part)
        return placed

    def _placed(self, output: OutputFile, part: Path, target: Path, remote_path: str | None) -> OutputFile:
        """Gives the complete file its final name, converted if the request wants that. Raises: OSError."""
        conversion = self._run.request.convert
        if conversion is None or not is_convertible(output):
            return _arrived(output, place_atomically(part, target), remote_path)
        converted = converted_part_of(self._run, output)
        try:
            if not convert_image(part, converted, conversion, self._stop):
                return _arrived(output, place_atomically(part, target), remote_path)
            local = place_atomically(converted, target.with_name(conversion.name_of(target.name)))
        except NotConverted as error:
            kept = place_atomically(part, target)
            sentence = (
                f"It cannot be converted to {conversion.format}: {error}. As it was saved, it is at {kept}"
            )
            return replace(output, error=sentence, is_lost=True)
        finally:
            remove(converted)
        named = replace(output, converted_name=conversion.name_of(output.filename))
        return _arrived(named, local, remote_path)

    def bring_to_disk(self, outputs: Sequence[OutputFile]) -> None:
        """Flushes the downloaded files and their directory entries to disk. Raises: StoreError."""
        directory = Path(self._run.request.output_dir)
        try:
            flush_placed([Path(each.local_path) for each in outputs if each.local_path], directory)
        except OSError as error:
            raise StoreError(f"It cannot be written to {directory}: {error.strerror}") from error

    def _download(self, output: OutputFile, part: Path) -> str | None:
        """Returns the remote path; None for a text, which is not a file on the instance."""
        if output.text is not None:
            part.write_text(output.text, encoding="utf-8")
            return None
        with self._live.transfer(Direction.DOWNLOAD, output.filename, self._stop) as report:
            return self._download_file(output, part, report)

    def _download_file(self, output: OutputFile, part: Path, report: Report) -> str | None:
        """Raises: RemoteFileError if no source has the file, and a retry would not find it either."""
        refusals: list[RemoteFileError] = []
        with LocalPart(part, is_resumable=True) as local:
            for source in self._sources(output):
                local.is_begun = False
                try:
                    return source(local, report)
                except RemoteFileOverwritten:
                    raise
                except RemoteFilesSilent as silence:
                    self._silence = silence
                except RemoteFileError as refusal:
                    if local.is_begun:  # data of this source is useless; an older part may be usable
                        local.discard()
                    refusals.append(refusal)
        if self._silence is not None:
            raise self._silence
        raise next((each for each in refusals if not isinstance(each, RemoteFileMissing)), refusals[-1])

    def _sources(self, output: OutputFile) -> Iterator[Callable[[LocalPart, Report], str | None]]:
        """The sources of a file. After SFTP stopped responding, it is not used again on this session."""
        for remote in self._remote_paths(output):
            if self._silence is None:
                yield partial(self._copy, output, remote)
        if not is_outside(output):
            yield partial(self._view, output)

    def _remote_paths(self, output: OutputFile) -> Iterator[str]:
        """Paths in the directory that ComfyUI reports, then in the configured one."""
        for directory in self._remote_dirs(output.folder):
            yield str(PurePosixPath(directory, output.subfolder, output.filename))

    def _remote_dirs(self, folder: str) -> Iterator[str]:
        if folder.startswith("/"):
            yield folder
            return
        own = self._session.directories().of(folder)
        if own is not None:
            yield own
        configured = self._run.comfyui_output_dir if folder == "output" else None
        if configured is not None and configured != own:
            yield configured

    def _copy(self, output: OutputFile, remote: str, part: LocalPart, report: Report) -> str:
        """Downloads over SFTP. ComfyUI is asked for the end of the file while the file is being opened; a
        short file is complete then."""
        with self._session.connection.files.opening(remote, progress=report) as opening:
            seen = self._seen_by_comfyui(output)
            whole = seen.whole if isinstance(seen, FileEnd) else None
            if whole is None:
                found = opening.fetch(part)
            else:
                found = opening.attributes()
                _receive(whole, part, report)
        part.close()
        if whole is None and not self._origin.is_numbered(output):
            seen = self._seen_by_comfyui(output)  # the next prompt may have overwritten it meanwhile
        self._check(output, part.path, self._write_time(output, part.path, found, seen))
        return remote

    def _seen_by_comfyui(self, output: OutputFile) -> "FileEnd | RemoteFileError | ComfyUIUnavailable | None":
        """Returns the end of the file that ComfyUI has under this name, or the error if ComfyUI does not
        tell; None for a file that it does not serve. Raises: RemoteFileMissing if ComfyUI has none."""
        if is_outside(output):  # `/view` serves only files below ComfyUI's own directories
            return None
        try:
            return request_end(
                self._session.client, output.filename, subfolder=output.subfolder, folder=output.folder
            )
        except RemoteFileMissing:
            raise
        except (RemoteFileError, ComfyUIUnavailable) as error:
            return error

    def _write_time(
        self,
        output: OutputFile,
        part: Path,
        found: RemoteFile,
        seen: "FileEnd | RemoteFileError | ComfyUIUnavailable | None",
    ) -> WriteTime:
        """Checks that ComfyUI has this file under this name. If ComfyUI does not tell, the time of the file
        or the graph inside must prove its origin. Raises: RemoteFileMissing; `seen`, if it is an error."""
        modified_s = found.modified_at.timestamp()
        rounded = WriteTime(earliest_s=modified_s, latest_s=modified_s + 1)  # SFTP tells whole seconds
        if isinstance(seen, FileEnd):
            seen.check(part, modified_s)
            return rounded if seen.viewed.modified_ns is None else _exactly(seen.viewed.modified_ns)
        if seen is None or self._origin.is_proved(output, part, rounded):
            return rounded
        raise seen

    def _view(self, output: OutputFile, part: LocalPart, report: Report) -> str | None:
        """Downloads through the tunnel: for a machine without SFTP, or if the directories are unknown."""
        modified_ns = self._view_content(output, part, report)
        part.close()
        self._check(output, part.path, None if modified_ns is None else _exactly(modified_ns))
        return next(iter(self._remote_paths(output)), None)

    def _view_content(self, output: OutputFile, part: LocalPart, report: Report) -> int | None:
        """Resumes a partial download. Starts from the beginning if the part is of another version, or if
        ComfyUI cannot resume. Returns the modification time in nanoseconds."""
        view = partial(
            self._session.client.view, output.filename, subfolder=output.subfolder, folder=output.folder
        )
        kept_version = part.kept_version()
        kept_bytes = part.kept_bytes() if kept_version else 0
        if kept_bytes:
            with suppress(RemoteFileError), view(start=kept_bytes) as viewed:
                if not viewed.start or _version(viewed) == kept_version:
                    return _receive(viewed, part, report)
        with view() as viewed:
            return _receive(viewed, part, report)

    def _check(self, output: OutputFile, part: Path, written: WriteTime | None) -> None:
        """Checks that the file is complete and was made by this run. Raises: RemoteFileError."""
        check_complete(part, output)
        self._origin.check(output, part, written)


def _arrived(output: OutputFile, local: Path, remote_path: str | None) -> OutputFile:
    size_bytes = local.stat().st_size
    return replace(
        output,
        remote_path=remote_path,
        local_path=str(local),
        size_bytes=size_bytes,
        error=None,
        is_lost=False,
    )


def _exactly(modified_ns: int) -> WriteTime:
    return WriteTime(earliest_s=modified_ns / 1e9, latest_s=modified_ns / 1e9)


def _version(viewed: ViewedFile) -> str | None:
    """The version in the same format as SFTP reports it, if the modification time is known."""
    if viewed.size_bytes is None or viewed.tag is None:
        return None
    if viewed.modified_ns is None:
        return f"{viewed.size_bytes} bytes of {viewed.tag}"
    return version_of(viewed.size_bytes, viewed.modified_ns // 10**9)


def _receive(viewed: ViewedFile, part: LocalPart, report: Report) -> int | None:
    """Writes the response into the partial file. Returns the modification time in nanoseconds. Raises:
    RemoteFileError if the length is wrong or the disk is almost full."""
    expected_bytes = viewed.size_bytes if viewed.size_bytes is not None else part.size_bytes
    done_bytes = part.begin(expected_bytes, _version(viewed), most_kept=viewed.start)
    most_bytes = part.free_bytes() - _KEPT_FREE_BYTES if expected_bytes is None else expected_bytes
    report(done_bytes, expected_bytes or 0)
    for piece in viewed:
        done_bytes += len(piece)
        if done_bytes > most_bytes:
            raise RemoteFileError(f"the file is too long: more than {most_bytes} bytes were received")
        part.write(piece)
        report(done_bytes, expected_bytes or 0)
    if expected_bytes is not None and done_bytes != expected_bytes:
        raise RemoteFileError(f"{done_bytes} bytes were received instead of {expected_bytes}")
    return viewed.modified_ns


def part_of(run: Run, output: OutputFile) -> Path:
    """The path of the partial file, the same for every attempt."""
    tag = hashlib.sha256("/".join(output.key).encode()).hexdigest()[:12]
    return Path(run.request.output_dir) / f".{run.run_id}.{tag}.part"


def converted_part_of(run: Run, output: OutputFile) -> Path:
    """The path of the converted file before it has its final name."""
    part = part_of(run, output)
    return part.with_name(f"{part.stem}.converted{part.suffix}")


def remove_parts(run: Run) -> None:
    """Removes partial files of outputs that were not downloaded. Call it before the run ends for good."""
    for output in run.outputs:
        if not output.is_downloaded:
            remove(part_of(run, output))
            remove(converted_part_of(run, output))
    sent_pictures.discard(run)


def _permanent_error(trouble: StoreError, cause: BaseException | None) -> str:
    """Returns the error sentence of a permanent error. Raises: the error itself for a full disk, which is
    transient."""
    if isinstance(cause, OSError) and cause.errno in _FULL:
        raise trouble from cause
    return str(trouble)


def nodes_to_save_again(run: Run, gone: Sequence[OutputFile]) -> tuple[str, ...]:
    """Returns the nodes that must execute so that files which ComfyUI's cache lists exist again. Empty if
    they were executed again before, or if a file is of no node of the graph. A node that another one created
    counts as that one: its id begins with the id of the other."""
    node_ids = [
        next((each for each in _ancestors(output.node_id) if each in run.graph), "") for output in gone
    ]
    return () if run.saved_again or not all(node_ids) else tuple(dict.fromkeys(node_ids))


def _ancestors(node_id: str) -> Iterator[str]:
    """Yields the id, then the ids of the nodes that created it: `57:9.0.0.3` is of `57:9`."""
    parts = node_id.split(".")
    yield from (".".join(parts[:count]) for count in range(len(parts), 0, -1))


def saved_again_sentence(gone: Sequence[OutputFile]) -> str:
    names = ", ".join(output.filename for output in gone[:_MOST_NAMED])
    more = f" and {len(gone) - _MOST_NAMED} more" if len(gone) > _MOST_NAMED else ""
    return (
        "ComfyUI took the results from its cache, but their files are gone from the instance "
        f"({names}{more}): the workflow is submitted once more, and the nodes that save these files run"
    )


def missing_sentence(run: Run) -> str | None:
    """Lists the outputs that were not downloaded, with reasons; None if all were."""
    missing = [output for output in run.outputs if not output.is_downloaded]
    if not missing:
        return None
    reasons = "; ".join(f"{_label(run, output)}: {output.error or 'not fetched'}" for output in missing)
    return (
        f"The prompt ran, but {len(missing)} of {len(run.outputs)} outputs could not be fetched ({reasons}). "
        f"{_advice(missing)}"
    )


def is_lost(run: Run) -> bool:
    """True if a retry can fetch none of the outputs that were not downloaded."""
    return all(output.is_lost for output in run.outputs if not output.is_downloaded)


def _label(run: Run, output: OutputFile) -> str:
    node = run.node_type(output.node_id)
    return f"{output.filename} of node {output.node_id} ({node})" if node else output.filename


def _advice(missing: Sequence[OutputFile]) -> str:
    """Says what helps: a retry only if it can find another file than this attempt did."""
    if all(output.is_lost for output in missing):
        is_name = any(output.error == NOT_SAFE for output in missing)
        name = ", with another name in the node that saves" if is_name else ""
        return f"A retry cannot fetch them: execute the run again{name}"
    is_cut_short = any((output.error or "").startswith((EMPTY, CUT_SHORT)) for output in missing)
    again = ". A file that is not whole there stays so: execute the run again" if is_cut_short else ""
    return f"A retry fetches what is missing without running the prompt again{again}"


def not_fetched_sentence(run: Run) -> str:
    """The message of a run that is cancelled while its outputs are downloaded."""
    missing = sum(not output.is_downloaded for output in run.outputs)
    return f"Cancelled while its outputs were fetched: {missing} of {len(run.outputs)} did not come"
