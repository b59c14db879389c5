"""Files of requests that are given by URL: inputs and images of jobs, which are downloaded when their run
starts, and workflows, which are downloaded at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import (
    InvalidGraph,
    InvalidRequest,
    Stopped,
    StorageError,
    StorageUnavailable,
    UrlRefused,
)
from comfyui_workflow.runs.credentials import NO_SECRETS, RequestSecrets, without_secrets
from comfyui_workflow.runs.upload_target import InputDownload, UploadTarget, check_storage_url, name_of_url
from comfyui_workflow.services.uploads import Uploads
from comfyui_workflow.storage.cache import DownloadCache
from comfyui_workflow.storage.registry import StorageRegistry
from comfyui_workflow.workflows.input_formats import GivenWorkflow, read_given_stream

MB = 1024 * 1024
LARGEST_WORKFLOW_BYTES = 256 * MB
"""A workflow may be inside of a picture or a video."""
LONGEST_DOWNLOAD_S = 120.0
"""A request waits for its workflow, and occupies a thread of the server meanwhile."""
LARGEST_IMAGE_BYTES = 64 * MB
"""Maximum size of an image of a job."""
LONGEST_IMAGE_S = 120.0
"""Of one attempt. The next attempt goes on where this one stopped, if the server allows it."""


@dataclass(frozen=True, kw_only=True)
class UrlInputs:
    storages: StorageRegistry
    cache: DownloadCache
    uploads: Uploads

    def plan(self, url: str) -> InputDownload:
        """Chooses the local path of an input. It keeps the name and directories of the URL, because the
        workflow names the file with them. No network access. Raises: InvalidRequest, UrlRefused,
        FileRefused."""
        check_storage_url(url)
        shown = without_secrets(url)
        try:
            self.storages.check(url)
        except UrlRefused as error:
            raise UrlRefused(f"{shown}: {error}") from error
        return InputDownload(url=shown, path=str(self.uploads.path_for_upload(name_of_url(url))))

    def check(self, target: UploadTarget | None, secrets: RequestSecrets) -> None:
        """Checks the addresses that a request names for uploads and in credentials. No network access.
        Raises: UrlRefused."""
        self.storages.check_secrets(secrets)
        if target is not None:
            self.storages.check_target(target, secrets)

    def read_workflow(self, url: str, secrets: RequestSecrets) -> GivenWorkflow:
        """Downloads a workflow: JSON in either format, or a file that ComfyUI made. Raises: InvalidRequest,
        InvalidGraph, StoreError."""
        check_storage_url(url)
        shown = without_secrets(url)
        try:
            with _time_limit(LONGEST_DOWNLOAD_S) as stop:
                path = self.cache.fetch(url, secrets, report=partial(_check_workflow, stop), stop=stop)
            with path.open("rb") as file:
                return read_given_stream(file)
        except (StorageError, Stopped) as error:
            raise InvalidRequest(f"Workflow file could not be downloaded: {error}") from error
        except OSError as error:
            raise InvalidRequest(f"Workflow file cannot be read: {shown} ({error.strerror})") from error
        except (ValueError, RecursionError) as error:
            raise InvalidGraph(f"Failed to parse workflow: {shown} is not JSON ({error})") from error

    def check_image(self, url: str) -> None:
        """Checks the URL of an image of a job, without any network access. Raises: UrlRefused."""
        self.storages.check(url)

    def get_image(self, url: str, path: Path) -> None:
        """Downloads an image of a job to `path`. Raises: UrlRefused; StorageError; StorageUnavailable if a
        retry may succeed; StoreError."""
        try:
            with _time_limit(LONGEST_IMAGE_S) as stop:
                self.cache.get(url, path, NO_SECRETS, report=partial(_check_image, stop), stop=stop)
        except Stopped as error:
            raise StorageUnavailable(f"{without_secrets(url)}: {error}") from error


@contextmanager
def _time_limit(limit_s: float) -> Iterator[CancelToken]:
    """Yields a token that is cancelled when the time of a download is over."""
    stop = CancelToken()
    timer = threading.Timer(limit_s, stop.cancel, [f"it takes longer than {limit_s:g} s"])
    timer.daemon = True
    timer.start()
    try:
        yield stop
    finally:
        timer.cancel()


def _check_workflow(stop: CancelToken, done_bytes: int, total_bytes: int) -> None:
    stop.check()
    if max(done_bytes, total_bytes) > LARGEST_WORKFLOW_BYTES:
        raise InvalidRequest(
            f"Workflow file is larger than {LARGEST_WORKFLOW_BYTES // MB} MB, the most that this server "
            "downloads"
        )


def _check_image(stop: CancelToken, done_bytes: int, total_bytes: int) -> None:
    stop.check()
    if max(done_bytes, total_bytes) > LARGEST_IMAGE_BYTES:
        raise StorageError(f"The image is larger than {LARGEST_IMAGE_BYTES // MB} MB")
