"""Protocols of external storage: files are downloaded from URLs, and outputs are uploaded to targets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.runs.credentials import RequestSecrets
from comfyui_workflow.runs.upload_target import UploadTarget

Report = Callable[[int, int], None]
"""Progress callback of a transfer: bytes done and total bytes. The total is 0 while it is unknown. It raises
Stopped to end the transfer."""


def no_report(_done_bytes: int, _total_bytes: int) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class SignedUrl:
    """A web URL that a file can be downloaded from, and how to be authenticated there."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent to the server of the URL, and to no other one that it redirects to."""
    is_trusted: bool = False
    """The settings of this server name its address: it may be a private one."""


@dataclass(frozen=True, kw_only=True)
class S3Account:
    """Access to a service with the S3 API. Parts that are None come from the environment, as boto3 reads
    it."""

    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    endpoint_url: str | None = None
    region: str | None = None


class Source(Protocol):
    """A kind of storage that files are downloaded from. Every kind signs a URL; the download is the same."""

    def signed(self, url: str, secrets: RequestSecrets) -> SignedUrl:
        """Raises: StorageError, UrlRefused, InvalidRequest."""


class Destination(Protocol):
    """A kind of storage that outputs are uploaded to."""

    def put(
        self,
        target: UploadTarget,
        path: Path,
        key: str,
        content_type: str,
        *,
        secrets: RequestSecrets,
        report: Report = no_report,
    ) -> str:
        """Uploads a file, over an older one with this key. Returns its URL, without secrets. The upload is
        complete when this returns. Raises: StorageUnavailable if a retry may succeed; StorageError;
        UrlRefused; Stopped."""

    def url_of(self, target: UploadTarget, key: str) -> str:
        """Returns the URL that `put` returns. Raises: StorageError."""


class FileGetter(Protocol):
    """Downloads files by their URLs: `storage.cache.DownloadCache`."""

    def get(
        self, url: str, path: Path, secrets: RequestSecrets, *, report: Report = no_report, stop: CancelToken
    ) -> None:
        """Downloads the file of a URL, or takes it from the cache, and places it at `path`, complete and
        flushed. `path` must not exist. Raises: UrlRefused; StorageError; StorageUnavailable if a retry may
        succeed; WebError, WebUnavailable; StoreError; Stopped."""


class Storage(Protocol):
    def put(self, path: Path, key: str, content_type: str) -> str:
        """Uploads a file and returns a URL that it can be read from. The upload is complete when this
        returns. Raises: StorageError."""


class Answer(Protocol):
    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def content(self) -> bytes: ...


Send = Callable[[str, str, bytes | IO[bytes] | None, Mapping[str, str]], Answer]
"""`send(method, url, content, headers)` sends one HTTP request. Raises: UrlRefused, WebError."""
