"""Queue of downloads with a limit for each server: a slow server must not hold back the others. No threads,
no locks, no network."""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import urlsplit

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Taken(Generic[Item]):
    """An item that is being downloaded, and the servers that it occupies."""

    item: Item
    servers: frozenset[str]


class DownloadQueue(Generic[Item]):
    """An item needs one or more servers. Items with the same servers are taken in their order."""

    def __init__(self, most_at_one_server: int) -> None:
        self._most_at_one_server = most_at_one_server
        self._waiting: dict[frozenset[str], deque[Item]] = {}
        """Queued items by servers. The servers that were used last come last (round robin)."""
        self._active: Counter[str] = Counter()

    def put(self, item: Item, urls: Iterable[str]) -> None:
        self._waiting.setdefault(frozenset(map(server_of, urls)), deque()).append(item)

    def take(self) -> Taken[Item] | None:
        """Returns an item whose servers are all below their limit, or None.

        The caller calls `release` afterwards."""
        servers = next((each for each in self._waiting if self._has_room(each)), None)
        if servers is None:
            return None
        items = self._waiting.pop(servers)
        item = items.popleft()
        if items:
            self._waiting[servers] = items
        self._active.update(servers)
        return Taken(item, servers)

    def release(self, taken: Taken[Item]) -> None:
        self._active.subtract(taken.servers)
        self._active = +self._active

    def remove(self, item: Item) -> bool:
        """Removes an item that was not taken yet. False if it is not in the queue."""
        servers = next((each for each, items in self._waiting.items() if item in items), None)
        if servers is None:
            return False
        self._waiting[servers].remove(item)
        if not self._waiting[servers]:
            del self._waiting[servers]
        return True

    def _has_room(self, servers: frozenset[str]) -> bool:
        return all(self._active[each] < self._most_at_one_server for each in servers)


def server_of(url: str) -> str:
    """Returns the server of a URL: host and port, a bucket, or Hugging Face as a whole. An invalid URL is a
    server too."""
    scheme = url.partition("://")[0].lower()
    if scheme == "hf":
        return scheme
    try:
        parts = urlsplit(url)
        return f"{scheme}://{parts.hostname}:{parts.port}"
    except ValueError:
        return "an invalid URL"
