"""Cache of downloaded files, by the hash of their URLs.

    CACHE_DIR/<hash of the URL><extension>        a complete file
    CACHE_DIR/.<hash><extension>.etag             its version, as the server tells it
    CACHE_DIR/.<hash><extension>.part             a download that can be resumed

How it works. Several requests for one URL are one download: the first one is the leader, the others wait for
it. A waiting request takes over if the leader is cancelled. A file in the cache is used if the server says
that it has the same version still (`If-None-Match`), if the server tells no version, and if the server cannot
be reached. A file that needed the credentials of a request is found by requests with the same credentials
only. The least recently used files are removed when the cache has its maximum size, and when the disk is
full. Files at their destination are links: they stay when the cache removes its name.
"""

import errno
import hashlib
import logging
import os
import re
import shutil
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import (
    Stopped,
    StorageError,
    StorageUnavailable,
    StoreError,
    UrlRefused,
    WebError,
    WorkflowError,
)
from comfyui_workflow.files.atomic_write import make_private_directory
from comfyui_workflow.files.disk_flush import flush_to_disk
from comfyui_workflow.files.partial_files import LocalPart, forget_version
from comfyui_workflow.runs.credentials import RequestSecrets, without_secrets
from comfyui_workflow.safe_http.client import GuardedClient
from comfyui_workflow.storage.base import Report, no_report
from comfyui_workflow.storage.events import DELETED, DOWNLOADED, TellEvent, file_data, tell_nobody
from comfyui_workflow.storage.http import download
from comfyui_workflow.storage.registry import StorageRegistry

log = logging.getLogger(__name__)

HASH_LETTERS = 32
REPORTED_EVERY_BYTES = 256 * 1024
"""Waiting requests learn the progress of the leader in these steps."""
GB = 1_000_000_000
_PLACING_TRIES = 3
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(eq=False)
class _Flight:
    """One download. Guarded by the condition of the cache."""

    done_bytes: int = 0
    total_bytes: int = 0
    is_over: bool = False
    error: WorkflowError | None = None


class DownloadCache:
    """See the module. Thread-safe."""

    def __init__(
        self,
        directory: Path,
        storages: StorageRegistry,
        *,
        guarded: GuardedClient,
        trusted: GuardedClient,
        most_bytes: int = 0,
        tell: TellEvent = tell_nobody,
    ) -> None:
        """`trusted` is the client for addresses that the settings name. `most_bytes`: 0 is no limit."""
        self._directory = directory
        self._storages = storages
        self._guarded = guarded
        self._trusted = trusted
        self._most_bytes = most_bytes
        self._tell = tell
        self._urls: dict[str, str] = {}
        """URLs of the files that this process has downloaded, by their names in the cache."""
        self._changed = threading.Condition()
        self._flights: dict[str, _Flight] = {}

    def check(self, url: str) -> None:
        """Checks a URL of a request without any network access. Raises: UrlRefused."""
        self._storages.check(url)

    def get(
        self, url: str, path: Path, secrets: RequestSecrets, *, report: Report = no_report, stop: CancelToken
    ) -> None:
        """Downloads the file of a URL, or takes it from the cache, and places it at `path`. Returns at once
        if `path` exists: it is placed when it is complete.

        Raises: UrlRefused; StorageError; StorageUnavailable if a retry may succeed; StoreError; Stopped."""
        for _ in range(_PLACING_TRIES):
            if path.exists():
                return
            cached = self.fetch(url, secrets, report=report, stop=stop)
            with suppress(FileNotFoundError):  # the cache has just removed it again
                _place(cached, path)
                return
        raise StoreError(f"{path.name} does not stay in the cache: LRU_CACHE_SIZE_GB is too small for it")

    def fetch(
        self, url: str, secrets: RequestSecrets, *, report: Report = no_report, stop: CancelToken
    ) -> Path:
        """Returns the path of the file in the cache. The file may be removed later. Raises: as `get`."""
        name = self._name(url, secrets)
        while True:
            stop.check()
            flight, is_leader = self._join(name)
            if is_leader:
                return self._lead(flight, name, url, secrets, report)
            if self._follow(flight, report, stop):
                return self._directory / name

    def _join(self, name: str) -> tuple[_Flight, bool]:
        with self._changed:
            flight = self._flights.get(name)
            if flight is not None:
                return flight, False
            flight = self._flights[name] = _Flight()
            return flight, True

    def _follow(self, flight: _Flight, report: Report, stop: CancelToken) -> bool:
        """Waits for the leader. False if the leader was stopped: then somebody else becomes the leader."""
        seen = -1
        with stop.notifying(self._changed):
            while True:
                with self._changed:
                    self._changed.wait_for(
                        lambda: flight.is_over or stop.is_set or flight.done_bytes != seen  # noqa: B023
                    )
                    seen, total_bytes, is_over = flight.done_bytes, flight.total_bytes, flight.is_over
                stop.check()
                if is_over:
                    break
                report(seen, total_bytes)
        if isinstance(flight.error, Stopped):
            return False
        if flight.error is not None:
            raise type(flight.error)(str(flight.error))
        return True

    def _lead(self, flight: _Flight, name: str, url: str, secrets: RequestSecrets, report: Report) -> Path:
        gives_up = False

        def tell(done_bytes: int, total_bytes: int) -> None:
            nonlocal gives_up
            try:
                report(done_bytes, total_bytes)
            except WorkflowError:
                gives_up = True
                raise
            if abs(done_bytes - flight.done_bytes) >= REPORTED_EVERY_BYTES or done_bytes == total_bytes:
                with self._changed:
                    flight.done_bytes, flight.total_bytes = done_bytes, total_bytes
                    self._changed.notify_all()

        error: WorkflowError | None = Stopped("the download ended")
        try:
            path = self._bring(name, url, secrets, tell)
            error = None
        except WorkflowError as trouble:
            error = error if gives_up else trouble  # its limits are not those of the others
            raise
        finally:
            with self._changed:
                flight.is_over, flight.error = True, error
                del self._flights[name]
                self._changed.notify_all()
        self._remove_old()
        return path

    def _bring(self, name: str, url: str, secrets: RequestSecrets, report: Report) -> Path:
        """Raises: as `get`."""
        shown = without_secrets(url)
        try:
            make_private_directory(self._directory)
            return self._download(name, url, secrets, report)
        except UrlRefused as error:
            raise UrlRefused(f"{shown}: {error}") from error
        except WebError as error:
            kind = StorageUnavailable if error.is_transient else StorageError
            raise kind(f"{shown}: {error}") from error
        except StoreError as error:
            if not _is_full(error) or not self._make_room():
                raise
            return self._download(name, url, secrets, report)
        except OSError as error:
            raise StoreError(f"{shown} cannot be stored: {error.strerror}") from error

    def _download(self, name: str, url: str, secrets: RequestSecrets, report: Report) -> Path:
        path, known, began_s = self._directory / name, self._known_etag(name), time.monotonic()
        if path.exists() and known is None:
            _use(path)
            return path
        try:
            signed = self._storages.signed(url, secrets)
            client = self._trusted if signed.is_trusted else self._guarded
            with LocalPart(self._directory / f".{name}.part", is_resumable=True) as part:
                done = download(client, signed, part, report=report, known_etag=known)
                if not done.is_unchanged:
                    self._accept(part.path, path, done.etag)
                    self._urls[name] = without_secrets(url)
                    data = file_data(url, path, path.stat().st_size, time.monotonic() - began_s)
                    self._tell(DOWNLOADED, data)
        except (WebError, StorageError) as error:
            if known is None or not error.is_transient:
                raise
            log.info("%s is taken from the cache: %s", without_secrets(url), error)
        _use(path)
        return path

    def _accept(self, part: Path, path: Path, etag: str | None) -> None:
        """Gives a complete file its name in the cache. Raises: OSError."""
        note = self._etag_path(path.name)
        note.unlink(missing_ok=True)
        flush_to_disk([part])
        part.replace(path)
        forget_version(part)
        if etag is not None:
            note.write_text(etag)
        flush_to_disk([self._directory])

    def _known_etag(self, name: str) -> str | None:
        """Returns the version of a file in the cache; None if there is none."""
        try:
            return self._etag_path(name).read_text() if (self._directory / name).exists() else None
        except (OSError, UnicodeDecodeError):
            return None

    def _etag_path(self, name: str) -> Path:
        return self._directory / f".{name}.etag"

    def _name(self, url: str, secrets: RequestSecrets) -> str:
        whole = secrets.complete(url)
        auth = secrets.auth_for(url)
        owner = "" if auth is None else f"\n{auth.kind}\n{auth.name}\n{auth.secret}\n{auth.endpoint}"
        digest = hashlib.sha256(f"{whole}{owner}".encode()).digest()
        suffix = re.search(r"\.[A-Za-z0-9]{1,12}$", urlsplit(whole).path)
        return urlsafe_b64encode(digest).decode()[:HASH_LETTERS] + (suffix[0] if suffix else "")

    def _remove_old(self) -> None:
        """Removes the least recently used files until the cache has at most its maximum size."""
        if not self._most_bytes:
            return
        files = list(self._files())
        left_bytes = sum(size_bytes for _, size_bytes, _ in files)
        for _, size_bytes, path in sorted(files):
            if left_bytes <= self._most_bytes:
                return
            left_bytes -= size_bytes
            self._remove(path)

    def _make_room(self) -> bool:
        """Removes the files that no run has at its own place. True if there were any."""
        removed = [path for _, _, path in self._files() if path.stat().st_nlink == 1]
        for path in removed:
            self._remove(path)
        return bool(removed)

    def _remove(self, path: Path) -> None:
        log.info("%s is removed from the cache", path.name)
        with suppress(OSError):
            data = file_data(self._urls.pop(path.name, "unknown"), path, path.stat().st_size)
            self._etag_path(path.name).unlink(missing_ok=True)
            path.unlink()
            self._tell(DELETED, data)

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Yields (time of last use, size in bytes, path), without those that are downloaded now."""
        with self._changed:
            busy = set(self._flights)
        for path in self._directory.iterdir():
            if path.name.startswith(".") or path.name in busy:
                continue
            with suppress(OSError):
                found = path.stat()
                yield found.st_mtime, found.st_size, path


def _use(path: Path) -> None:
    """Sets the time of last use to now."""
    with suppress(OSError):
        os.utime(path)


def _place(cached: Path, path: Path) -> None:
    """Makes the file known under a second name, complete and flushed. Raises: FileNotFoundError if the cache
    has it no more; StoreError."""
    part = path.with_name(f".{threading.get_ident()}.new")  # short: a name has at most 255 bytes
    try:
        made = [each for each in path.parents if not each.exists()]
        for directory in reversed(made):
            make_private_directory(directory)
        part.unlink(missing_ok=True)
        try:
            os.link(cached, part)
        except FileNotFoundError:
            raise
        except OSError:  # another file system
            shutil.copyfile(cached, part)
            flush_to_disk([part])
        part.replace(path)
        part.unlink(missing_ok=True)  # a link that replaces another name of the same file stays
        flush_to_disk([path.parent, *(each.parent for each in made)])
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{path.name} cannot be stored: {error.strerror}") from error


def _is_full(error: BaseException) -> bool:
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in _FULL
