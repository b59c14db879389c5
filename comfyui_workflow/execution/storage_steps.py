"""The steps of a run that use external storage: inputs are downloaded before the run uses an instance, and
outputs are uploaded after they have left it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from comfyui_workflow.concurrency import CancelToken, ParallelMap
from comfyui_workflow.delivery.output_uploads import OutputUploader
from comfyui_workflow.errors import InputNotDownloaded, StorageError, UrlRefused
from comfyui_workflow.execution.live_progress import Direction, LiveRun, Report
from comfyui_workflow.runs.credentials import RequestSecrets
from comfyui_workflow.runs.events import Event, PhaseEntered
from comfyui_workflow.runs.model import Phase, Run
from comfyui_workflow.runs.upload_target import InputDownload
from comfyui_workflow.storage.base import FileGetter

DOWNLOADS_AT_ONCE = 4


@dataclass(frozen=True, kw_only=True)
class StorageSteps:
    """Transfers of one server. Thread-safe."""

    getter: FileGetter
    uploader: OutputUploader
    secrets: Callable[[str], RequestSecrets]
    """Returns the credentials of a run, by its id."""

    def needs_inputs(self, run: Run) -> bool:
        """True if inputs that are given by URL are not here, and the prompt was not submitted yet."""
        return bool(_missing(run))

    def download_inputs(
        self, run: Run, live: LiveRun, record: Callable[[Event], object], stop: CancelToken
    ) -> None:
        """Downloads the inputs that are given by URL and not here yet. Nothing to do after the prompt was
        submitted. Raises: InputNotDownloaded, StoreError, Stopped."""
        missing = _missing(run)
        if not missing:
            return
        secrets = self.secrets(run.run_id)
        downloads = ParallelMap(DOWNLOADS_AT_ONCE, stop)

        def get(each: InputDownload) -> None:
            path = Path(each.path)
            with live.transfer(Direction.DOWNLOAD, path.name, downloads.stop) as report:
                try:
                    own = secrets.of_download(each.url, each.path)
                    self.getter.get(each.url, path, own, report=report, stop=downloads.stop)
                except (StorageError, UrlRefused) as error:
                    raise InputNotDownloaded(
                        f"Input {path.name} could not be downloaded: {error}", is_transient=error.is_transient
                    ) from error

        with downloads.results(get, missing) as results:
            for position, each in enumerate(missing, start=1):
                message = f"Downloading {Path(each.path).name} ({position} of {len(missing)})"
                record(PhaseEntered(phase=Phase.WAITING, message=message))
                next(results)

    def upload_outputs(
        self, run: Run, live: LiveRun, record: Callable[[Event], object], stop: CancelToken
    ) -> None:
        """Uploads the outputs that are not where the request wants them. Raises: UploadFailed, StoreError,
        Stopped."""

        def open_transfer(filename: str, own_stop: CancelToken) -> AbstractContextManager[Report]:
            return live.transfer(Direction.UPLOAD, filename, own_stop)

        secrets = self.secrets(run.run_id)
        self.uploader.upload(run, secrets, open_transfer=open_transfer, record=record, stop=stop)


def _missing(run: Run) -> list[InputDownload]:
    if run.is_finished or run.prompt_id is not None or run.are_outputs_known:
        return []
    return [each for each in run.request.downloads if not Path(each.path).exists()]
