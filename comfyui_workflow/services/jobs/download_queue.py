"""Queue of images to download, with a limit per server. No threads, no locks, no network."""

from collections import Counter, deque
from dataclasses import dataclass

from comfyui_workflow.safe_http.urls import origin_of

MOST_AT_ONE_SERVER = 2
"""Maximum number of concurrent downloads from one server: a slow server must not block the others."""


@dataclass(frozen=True, kw_only=True)
class QueuedDownload:
    """The next image of a job."""

    job_id: str
    url: str
    tries: int
    """Number of this attempt, from 1."""


class DownloadQueue:
    def __init__(self) -> None:
        self._waiting: dict[str, deque[QueuedDownload]] = {}
        """Queued images by server. The server that was used last comes last (round robin)."""
        self._active: Counter[str] = Counter()

    def put(self, image: QueuedDownload) -> None:
        self._waiting.setdefault(origin_of(image.url), deque()).append(image)

    def take(self) -> QueuedDownload | None:
        """Returns an image whose server is below its limit, or None.

        The caller calls `release` afterwards."""
        server = next((each for each in self._waiting if self._active[each] < MOST_AT_ONE_SERVER), None)
        if server is None:
            return None
        images = self._waiting.pop(server)
        image = images.popleft()
        if images:
            self._waiting[server] = images
        self._active[server] += 1
        return image

    def release(self, image: QueuedDownload) -> None:
        server = origin_of(image.url)
        self._active[server] -= 1
        if not self._active[server]:
            del self._active[server]
