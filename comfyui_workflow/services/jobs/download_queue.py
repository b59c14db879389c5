"""Images that wait to be fetched, and which is next. It has no thread, no lock and no network."""

from collections import Counter, deque
from dataclasses import dataclass

from comfyui_workflow.safe_http.urls import origin_of

MOST_AT_ONE_SERVER = 2
"""One that is slow keeps no more places than these from the others."""


@dataclass(frozen=True, kw_only=True)
class QueuedDownload:
    """The next one of a job."""

    job_id: str
    url: str
    tries: int
    """This one included."""


class DownloadQueue:
    def __init__(self) -> None:
        self._waiting: dict[str, deque[QueuedDownload]] = {}
        """By their servers; that which was asked last comes last."""
        self._places: Counter[str] = Counter()

    def put(self, image: QueuedDownload) -> None:
        self._waiting.setdefault(origin_of(image.url), deque()).append(image)

    def take(self) -> QueuedDownload | None:
        """One whose server has a place for it, until it is given back."""
        server = next((each for each in self._waiting if self._places[each] < MOST_AT_ONE_SERVER), None)
        if server is None:
            return None
        row = self._waiting.pop(server)
        image = row.popleft()
        if row:
            self._waiting[server] = row
        self._places[server] += 1
        return image

    def give_back(self, image: QueuedDownload) -> None:
        server = origin_of(image.url)
        self._places[server] -= 1
        if not self._places[server]:
            del self._places[server]
