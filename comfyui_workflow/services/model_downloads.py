"""Downloads of models on instances that belong to no run.

Nothing about them is on disk here. A download that the end of this server interrupts leaves its partial file
on the instance, and the next request for it continues there.
"""

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import InvalidRequest, ServerBusy, WorkflowError
from comfyui_workflow.parsing.untrusted import shown
from comfyui_workflow.provisioning.downloads import PlacedFile, Progress, WantedFile, download
from comfyui_workflow.provisioning.folders import folders_of
from comfyui_workflow.provisioning.rules import DownloadRules
from comfyui_workflow.retry import Backoff, HighWaterMarks
from comfyui_workflow.runs.credentials import NO_SECRETS, RequestSecrets
from comfyui_workflow.sessions.leases import ConcurrencyLimit, Sessions, lease_session
from comfyui_workflow.sessions.session import ComfyUISession, InstanceKey
from comfyui_workflow.storage.events import TellEvent, tell_nobody
from comfyui_workflow.workflows.model_sources import RENAMED_FOLDERS

MOST_AT_ONCE = 4
MOST_UNFINISHED = 200
CONTACT_PATIENCE_S = 30.0
PATIENCE_S = 120.0
"""A download that comes no further for so long has failed."""
STOPPED = "The server stops. Send the request again after its next start: the download continues"

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ModelOrder:
    """`url` has no secrets. `folder` is ComfyUI's name of the kind of model; `name` is that of the file."""

    url: str
    folder: str
    name: str
    secrets: RequestSecrets = field(default=NO_SECRETS, repr=False)


class ModelDownloads:
    """Downloads models. Thread-safe."""

    def __init__(self, sessions: Sessions, rules: DownloadRules, tell: TellEvent = tell_nobody) -> None:
        self._sessions = sessions
        self._rules = rules
        self._tell = tell
        self._stop = CancelToken()
        self._checks = ConcurrencyLimit(MOST_AT_ONCE, f"{MOST_AT_ONCE} downloads are being started just now")
        self._unfinished = threading.BoundedSemaphore(MOST_UNFINISHED)
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="model download")

    def start(self, key: InstanceKey, order: ModelOrder) -> None:
        """Starts a download, which goes on after this call. Its failure is in the log.

        Raises: InvalidRequest; InstanceError, ComfyUIError; ServerBusy; Stopped when the server stops."""
        with self._checks.taken(), lease_session(self._sessions, key, CONTACT_PATIENCE_S) as session:
            _directory(session, order.folder)
        self._stop.check()
        if not self._unfinished.acquire(blocking=False):
            raise ServerBusy(f"{MOST_UNFINISHED} downloads of models are unfinished; try again later")
        self._threads.submit(self.run, key, order).add_done_callback(partial(self._ended, order))

    def run(self, key: InstanceKey, order: ModelOrder) -> PlacedFile:
        """Returns when the file is in its place. Continues after a cut.

        Raises: InvalidRequest; ProvisionFailed; InstanceError, ComfyUIError; Stopped when the server
        stops."""
        backoff = Backoff()
        marks = HighWaterMarks(backoff.reset)
        while True:
            try:
                return self._attempt(key, order, marks)
            except WorkflowError as error:
                if not error.is_transient or backoff.failing_for_s() > PATIENCE_S:
                    raise
            self._stop.wait(backoff.next_wait_s())
            self._stop.check()

    def stop(self) -> None:
        self._stop.cancel(STOPPED)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _attempt(self, key: InstanceKey, order: ModelOrder, marks: HighWaterMarks) -> PlacedFile:
        def report(progress: Progress) -> None:
            marks.note(progress.is_check, progress.done_bytes)

        with lease_session(self._sessions, key, CONTACT_PATIENCE_S) as session:
            directory = _directory(session, order.folder)
            wanted = WantedFile(url=order.url, directory=directory, name=order.name)
            placed = download(
                session.connection,
                wanted,
                self._rules,
                secrets=order.secrets,
                stop=self._stop,
                report=report,
                tell=self._tell,
            )
            session.drop_definitions()  # ComfyUI lists the new file now
        return placed

    def _ended(self, order: ModelOrder, future: "Future[PlacedFile]") -> None:
        self._unfinished.release()
        error = None if future.cancelled() else future.exception()
        if isinstance(error, WorkflowError):
            log.warning("The model %s was not downloaded: %s", order.name, error)
        elif error is not None:
            log.error("The model %s was not downloaded", order.name, exc_info=error)


def _directory(session: ComfyUISession, folder: str) -> str:
    """Raises: InvalidRequest, which names the folders that there are; ProvisionFailed."""
    folders = folders_of(session)
    kinds = folders.kinds()
    wanted = folder if folder in kinds else RENAMED_FOLDERS.get(folder, folder)
    if wanted not in kinds:
        raise InvalidRequest(f"Unknown model type: {shown(folder)}. Available types: {', '.join(kinds)}")
    return folders.directory_of(wanted)
