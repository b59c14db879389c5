"""Download of input images that a job names by URL, before its run starts.

How it works. A job with missing images waits in a `DownloadQueue`, one image at a time. A few threads take
images from the queue, so no HTTP request waits for a download. After the last image the run is started. A
transient error is retried up to `TRIES` attempts, with a growing delay; any other error fails the run.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from comfyui_workflow.errors import JobNotFound, RunNotFound, StorageError, StoreError, UrlRefused
from comfyui_workflow.runs.events import PhaseEntered, RunFailed
from comfyui_workflow.runs.job import IMAGE_NOT_FETCHED, ImageDownload, Job
from comfyui_workflow.runs.model import Phase
from comfyui_workflow.services.jobs.timer import Timer
from comfyui_workflow.storage.download_queue import DownloadQueue, Taken
from comfyui_workflow.stores.base import JobStore
from comfyui_workflow.stores.journal import RunJournal, now

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Number of threads."""
AT_ONE_SERVER = 2
TRIES = 4
"""Maximum number of attempts per image."""
WAIT_S = 2.0
"""Delay before the second attempt. Before the third it is twice as long, and so on."""

FetchUrl = Callable[[str, Path], object]
"""`fetch(url, path)` places the complete file at the path. Raises: UrlRefused, StorageError, StoreError."""


@dataclass(frozen=True, kw_only=True)
class QueuedImage:
    """The next image of a job."""

    job_id: str
    tries: int
    """Number of this attempt, from 1."""


class ImageFetcher:
    """Downloads the images of jobs in its own threads."""

    def __init__(
        self,
        *,
        store: JobStore,
        journal: RunJournal,
        deadlines: Timer,
        fetch: FetchUrl,
        start: Callable[[str], None],
    ) -> None:
        """`start(run_id)` is called when all images of a run are downloaded, or when the run is cancelled."""
        self._store = store
        self._journal = journal
        self._deadlines = deadlines
        self._fetch = fetch
        self._start = start
        self._changed = threading.Condition()
        self._queue: DownloadQueue[QueuedImage] = DownloadQueue(AT_ONE_SERVER)
        self._is_stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"images {number}", daemon=True)
            for number in range(AT_ONCE)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stops the threads. Unfinished downloads are repeated after the next start."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()

    def put(self, job: Job, tries: int = 1) -> None:
        """Queues the next image of a job. `tries` is the number of the attempt, from 1."""
        with self._changed:
            self._queue.put(QueuedImage(job_id=job.job_id, tries=tries), [job.fetches[0].url])
            self._changed.notify_all()

    def _work(self) -> None:
        while (taken := self._next()) is not None:
            try:
                self._try_download(taken.item)
            finally:
                with self._changed:
                    self._queue.release(taken)
                    self._changed.notify_all()

    def _next(self) -> Taken[QueuedImage] | None:
        """Waits for the next image. Returns None when the server stops."""
        with self._changed:
            while not self._is_stopping:
                taken = self._queue.take()
                if taken is not None:
                    return taken
                self._changed.wait()
            return None

    def _try_download(self, image: QueuedImage) -> None:
        try:
            job = self._store.get(image.job_id)
            if job.fetches and not self._journal.get(job.run_id).is_cancel_requested:
                self._download(job, image)
            else:
                self._start(job.run_id)
        except (JobNotFound, RunNotFound) as error:
            log.debug("%s: %s", image.job_id, error)

    def _download(self, job: Job, image: QueuedImage) -> None:
        """Downloads one image and queues the next, or starts the run. Raises: JobNotFound, RunNotFound."""
        try:
            after = self._download_next(job, job.fetches[0])
        except (UrlRefused, StorageError, StoreError) as error:
            self._on_error(error, job, image.tries)
        except (JobNotFound, RunNotFound):
            raise
        except Exception as error:
            log.exception("%s: internal error", job.job_id)
            self._fail(job, f"Internal error: {type(error).__name__}")
        else:
            if after.fetches:
                self.put(after)
            else:
                self._start(after.run_id)

    def _download_next(self, job: Job, fetch: ImageDownload) -> Job:
        """Downloads one image, and returns the job without it."""
        name = Path(fetch.path).name
        entered = PhaseEntered(phase=Phase.WAITING, message=f"Downloading {name}")
        self._journal.record(job.run_id, entered)
        self._fetch(fetch.url, Path(fetch.path))
        return self._store.update(job.job_id, lambda job: _without(job, fetch))

    def _on_error(self, error: UrlRefused | StorageError | StoreError, job: Job, tries: int) -> None:
        if not error.is_transient or tries >= TRIES:
            self._fail(job, f"{Path(job.fetches[0].path).name}: {error}")
            return
        log.info("%s: %s; trying again", job.job_id, error)
        due = now() + timedelta(seconds=WAIT_S * tries)
        self._deadlines.at(due, lambda: self._put_again(job.job_id, tries + 1))

    def _put_again(self, job_id: str, tries: int) -> None:
        try:
            self.put(self._store.get(job_id), tries)
        except JobNotFound:
            log.debug("%s no longer exists", job_id)

    def _fail(self, job: Job, reason: str) -> None:
        try:
            self._journal.record(job.run_id, RunFailed(code=IMAGE_NOT_FETCHED, message=reason))
        except (RunNotFound, StoreError) as trouble:
            log.error("%s: %s", job.job_id, trouble)


def _without(job: Job, done: ImageDownload) -> Job:
    return replace(job, fetches=tuple(fetch for fetch in job.fetches if fetch != done))
