"""Output files on their way down: whole, once, never over a different file, never outside the directory."""

import errno
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from comfyui_workflow.errors import RemoteFileError, StoreError
from comfyui_workflow.link import Link
from comfyui_workflow.live import Direction, LiveRun, Report
from comfyui_workflow.runs.model import OutputFile, Run
from comfyui_workflow.settling import check_wholeness, flush_settled, remove, safe_relative_path, settle

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class OutputFetcher:
    """Fetches the outputs of one run over one link. From several threads when they are different outputs."""

    def __init__(self, link: Link, run: Run, stop_if_asked: Callable[[], None], live: LiveRun) -> None:
        self._link = link
        self._run = run
        self._output_dir = Path(run.request.output_dir)
        self._stop_if_asked = stop_if_asked
        self._live = live

    def fetch(self, output: OutputFile) -> OutputFile:
        """The output as it is now: with a `local_path`, or with an `error` that says why there is none.
        Raises: StoreError while the local disk does not take it; what the link raises when it breaks."""
        relative = safe_relative_path(output)
        if relative is None:
            return replace(output, error="The instance gave it a name that is not safe to write here")
        part = self._output_dir / self._part_name(output)
        try:
            self._output_dir.mkdir(parents=True, exist_ok=True)
            remote_path = self._download(output, part)
            check_wholeness(part, output)
            local = settle(part, self._output_dir / relative)
            size_bytes = local.stat().st_size
        except RemoteFileError as error:
            return replace(output, error=str(error))
        except StoreError as error:
            return replace(output, error=_lasting(error, error.__cause__))
        except OSError as error:
            trouble = StoreError(f"It cannot be written to {self._output_dir}: {error.strerror}")
            return replace(output, error=_lasting(trouble, error))
        finally:
            remove(part)
        return replace(
            output, remote_path=remote_path, local_path=str(local), size_bytes=size_bytes, error=None
        )

    def bring_to_disk(self, outputs: Sequence[OutputFile]) -> None:
        """Those that are here, with their names. Raises: StoreError."""
        try:
            flush_settled([Path(each.local_path) for each in outputs if each.local_path], self._output_dir)
        except OSError as error:
            raise StoreError(f"It cannot be written to {self._output_dir}: {error.strerror}") from error

    def _part_name(self, output: OutputFile) -> str:
        """One for each output, and the same at the next try: what a killed process left is written over."""
        tag = hashlib.sha256("/".join(output.key).encode()).hexdigest()[:12]
        return f".{self._run.workflow_id}.{tag}.part"

    def _download(self, output: OutputFile, part: Path) -> str | None:
        """The remote path; None for a text, which never was a file there. Raises: RemoteFileMissing."""
        if output.text is not None:
            part.write_text(output.text, encoding="utf-8")
            return None
        with self._live.transfer(Direction.DOWNLOAD, output.filename, self._stop_if_asked) as report:
            return self._download_file(output, part, report)

    def _download_file(self, output: OutputFile, part: Path, report: Report) -> str | None:
        for remote in self._remote_paths(output):
            try:
                self._link.connection.files.download(remote, part, progress=report)
            except RemoteFileError:
                continue
            return remote
        return self._view(output, part, report)

    def _remote_paths(self, output: OutputFile) -> Iterator[str]:
        """In the configured directory, then by ComfyUI's own word, which is asked for when it is needed."""
        for place in self._remote_dirs(output.folder):
            yield str(PurePosixPath(place, output.subfolder, output.filename))

    def _remote_dirs(self, folder: str) -> Iterator[str]:
        configured = self._run.comfyui_output_dir if folder == "output" else None
        if configured is not None:
            yield configured
        own = self._link.directories().of(folder)
        if own is not None and own != configured:
            yield own

    def _view(self, output: OutputFile, part: Path, report: Report) -> str | None:
        """Through the tunnel: for a machine without SFTP, or directories that nobody tells."""
        with (
            self._link.client.view(
                output.filename, subfolder=output.subfolder, folder=output.folder
            ) as pieces,
            part.open("wb") as file,
        ):
            for piece in pieces:
                file.write(piece)
                report(file.tell(), 0)
        return next(reversed(list(self._remote_paths(output))), None)


def _lasting(trouble: StoreError, cause: BaseException | None) -> str:
    """The sentence, of trouble that stays. Raises: the trouble itself for a full disk, which can pass."""
    if isinstance(cause, OSError) and cause.errno in _FULL:
        raise trouble from cause
    return str(trouble)


def missing_sentence(run: Run) -> str | None:
    """What of a run's outputs is not here, and why; None when all is."""
    missing = [output for output in run.outputs if not output.is_downloaded]
    if not missing:
        return None
    reasons = "; ".join(f"{output.filename}: {output.error or 'not fetched'}" for output in missing)
    return (
        f"The prompt ran, but {len(missing)} of {len(run.outputs)} outputs could not be fetched ({reasons}). "
        "A retry fetches what is missing without running the prompt again"
    )
