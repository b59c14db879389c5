"""Uploads the outputs of a run to the storage that its request names.

How it works. The outputs are on this machine before the first upload, so a failed upload never needs the
instance again. Each upload is recorded when it is complete; a restarted server uploads only the rest. The key
of an output is the same in every attempt. If two runs upload to one URL at the same time, the later upload
wins: the earlier one is stopped, and counts as done.
"""

import mimetypes
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from comfyui_workflow.concurrency import CancelToken, ParallelMap
from comfyui_workflow.errors import Stopped, StorageError, UploadFailed, UrlRefused
from comfyui_workflow.files.atomic_placement import safe_relative_path
from comfyui_workflow.runs.credentials import RequestSecrets
from comfyui_workflow.runs.events import Event, NoticeAdded, OutputsUploaded, PhaseEntered
from comfyui_workflow.runs.model import OutputFile, Phase, Run
from comfyui_workflow.runs.upload_target import UploadKind, UploadTarget
from comfyui_workflow.storage.base import Report
from comfyui_workflow.storage.events import UPLOADED, TellEvent, file_data, tell_nobody
from comfyui_workflow.storage.registry import StorageRegistry

AT_ONCE = 4
"""Number of concurrent uploads of a run. Each upload to Hugging Face is a commit: one after the other."""
ABANDONED_AFTER_S = 30.0
"""Maximum wait for an earlier upload that was stopped: its server may not answer any more."""
SUPERSEDED = "A later run has uploaded to the same URL ({}): its file is there"
OpenTransfer = Callable[[str, CancelToken], AbstractContextManager[Report]]
"""`open_transfer(filename, stop)`: context manager around one upload; it yields the progress callback."""


class Superseded(Stopped):
    """A later upload to the same URL has taken over."""


class OutputUploader:
    """Uploads outputs. Thread-safe."""

    def __init__(self, storages: StorageRegistry, tell: TellEvent = tell_nobody) -> None:
        self._storages = storages
        self._tell = tell
        self._latest = LatestUploads()

    def upload(
        self,
        run: Run,
        secrets: RequestSecrets,
        *,
        open_transfer: OpenTransfer,
        record: Callable[[Event], object],
        stop: CancelToken,
    ) -> None:
        """Uploads the outputs that are not uploaded yet, several at a time, and records them in order. An
        output that cannot be uploaded does not stop the others.

        Raises: UploadFailed, transient if one of the errors is; Stopped; StoreError."""
        target, missing = run.request.upload, run.outputs_to_upload
        if target is None or not missing:
            return
        keys, failed = keys_of(run, target), list[StorageError | UrlRefused]()
        at_once = 1 if target.kind is UploadKind.HUGGING_FACE else AT_ONCE
        uploads = ParallelMap(at_once, stop)

        def upload(output: OutputFile) -> OutputFile | StorageError | UrlRefused:
            return self._upload_one(
                run, output, keys[output.key], secrets, open_transfer=open_transfer, stop=uploads.stop
            )

        with uploads.results(upload, missing) as results:
            for position, output in enumerate(missing, start=1):
                message = f"Uploading {output.name} to {target.shown} ({position} of {len(missing)})"
                record(PhaseEntered(phase=Phase.DELIVERING, message=message))
                done = next(results)
                if isinstance(done, OutputFile):
                    record(OutputsUploaded(outputs=(done,)))
                    if done.upload_error:
                        record(NoticeAdded(message=done.upload_error))
                else:
                    failed.append(done)
                    record(OutputsUploaded(outputs=(replace(output, upload_error=str(done)),)))
        if failed:
            raise _failure(failed, len(missing))

    def forget(self, run: Run) -> None:
        """Call it when the run has ended: it uploads nothing more."""
        if run.request.upload is not None:
            self._latest.forget(run.run_id)

    def _upload_one(
        self,
        run: Run,
        output: OutputFile,
        key: str,
        secrets: RequestSecrets,
        *,
        open_transfer: OpenTransfer,
        stop: CancelToken,
    ) -> OutputFile | StorageError | UrlRefused:
        """Returns the uploaded output, or the error. Raises: Stopped."""
        target = run.request.upload
        assert target is not None  # noqa: S101
        content_type = mimetypes.guess_type(output.name)[0] or "application/octet-stream"
        path, began_s = Path(output.local_path or ""), time.monotonic()
        try:
            url = self._storages.url_of(target, key)
            with (
                self._latest.claim(url, run.run_id, stop) as own,
                open_transfer(output.name, own) as report,
            ):
                self._storages.put(target, path, key, content_type, secrets=secrets, report=report)
                own.check()
            self._tell(UPLOADED, file_data(url, path, path.stat().st_size, time.monotonic() - began_s))
        except Superseded:
            return replace(output, upload_url=url, upload_error=SUPERSEDED.format(url))
        except (StorageError, UrlRefused) as error:
            return error
        except OSError as error:
            return StorageError(f"{path.name} cannot be read: {error.strerror}")
        return replace(output, upload_url=url, upload_error=None)


def keys_of(run: Run, target: UploadTarget) -> dict[tuple[str, str, str], str]:
    """Returns the key in the storage of each output, by the key of the output. All are different."""
    taken = dict[str, tuple[str, str, str]]()
    for output in run.outputs:
        relative = safe_relative_path(replace(output, filename=output.name))
        if relative is not None:
            name = next(each for each in _variants(relative.as_posix()) if each not in taken)
            taken[name] = output.key
    return {output_key: target.key(run.run_id, name) for name, output_key in taken.items()}


class LatestUploads:
    """Decides between runs that upload to one URL: the one that began last wins. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._active: dict[str, CancelToken] = {}
        """The token of the upload that goes on, by URL; it is the id of the upload. One that was abandoned
        has lost its place to the next one."""
        self._winners: dict[str, str] = {}
        """The run that began last, by URL."""
        self._claims: dict[tuple[str, str], CancelToken] = {}
        """The token of each (URL, run) that has begun; kept between the attempts of a run."""

    @contextmanager
    def claim(self, url: str, run_id: str, stop: CancelToken) -> Iterator[CancelToken]:
        """Yields a token that is cancelled with `stop`, and when a later run claims the URL. Waits until an
        earlier upload has ended, so that its last bytes do not arrive after ours. Raises: Superseded if a
        later run has claimed it already; Stopped."""
        own = CancelToken(stop)
        with self._changed:
            is_new = (url, run_id) not in self._claims
            is_superseded = not is_new and self._winners.get(url) != run_id
            before = self._claims.get((url, self._winners.get(url, ""))) if is_new else None
            self._claims[url, run_id] = own
            if is_new:
                self._winners[url] = run_id
        if before is not None:
            before.cancel(Superseded("a later run uploads to the same URL"))
        if is_superseded:
            raise Superseded("a later run has uploaded to the same URL")
        with own.notifying(self._changed), self._changed:
            self._changed.wait_for(lambda: url not in self._active or own.is_set, ABANDONED_AFTER_S)
            own.check()
            self._active[url] = own
        try:
            yield own
        finally:
            with self._changed:
                if self._active.get(url) is own:
                    del self._active[url]
                self._changed.notify_all()

    def forget(self, run_id: str) -> None:
        with self._changed:
            for url, claimed_by in [each for each in self._claims if each[1] == run_id]:
                del self._claims[url, claimed_by]
                if self._winners.get(url) == run_id:
                    del self._winners[url]


def _failure(failed: list[StorageError | UrlRefused], total: int) -> UploadFailed:
    is_transient = any(error.is_transient for error in failed)
    first = str(next((error for error in failed if error.is_transient == is_transient), failed[0]))
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    count = f"{len(failed)} of {total} outputs" if total > 1 else "The output"
    return UploadFailed(
        f"{count} could not be uploaded: {first.rstrip('.')}{more}. A retry uploads what is missing, without "
        "the GPU",
        is_transient=is_transient,
    )


def not_uploaded_sentence(run: Run) -> str:
    """The message of a run that is cancelled while its outputs are uploaded."""
    missing = len(run.outputs_to_upload)
    return f"Cancelled while its outputs were uploaded: {missing} of {len(run.outputs)} were not"


def _variants(name: str) -> Iterator[str]:
    yield name
    path = PurePosixPath(name)
    for number in range(2, 100_000):
        yield str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
