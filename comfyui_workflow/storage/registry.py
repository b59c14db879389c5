"""The kinds of storage: chooses one for a URL or an upload target. The modules of SDKs are imported when a
request needs them."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from comfyui_workflow.errors import StorageError
from comfyui_workflow.runs.credentials import RequestSecrets
from comfyui_workflow.runs.upload_target import HUGGING_FACE, UploadKind, UploadTarget
from comfyui_workflow.safe_http.client import GuardedClient
from comfyui_workflow.storage.azure import AzureAccount, AzureBlobs
from comfyui_workflow.storage.base import Destination, Report, S3Account, SignedUrl, Source, no_report
from comfyui_workflow.storage.http import HttpDestination, HttpHeader, HttpSource
from comfyui_workflow.storage.huggingface import HuggingFace, HuggingFaceAccount

if TYPE_CHECKING:
    from comfyui_workflow.storage.s3 import S3Access


@dataclass(frozen=True, kw_only=True)
class StorageSettings:
    """What the settings of the server say about storage."""

    s3: S3Account = field(default_factory=S3Account)
    azure: AzureAccount = field(default_factory=AzureAccount)
    hugging_face: HuggingFaceAccount = field(default_factory=HuggingFaceAccount)
    http_header: HttpHeader | None = None


class StorageRegistry:
    """All kinds of storage. Thread-safe. `client` refuses private addresses, unless a setting allows them."""

    def __init__(self, settings: StorageSettings, client: GuardedClient) -> None:
        self._settings = settings
        self._client = client
        self._http = HttpSource(settings.http_header)
        self._hugging_face = HuggingFace(settings.hugging_face)
        self._azure = AzureBlobs(settings.azure)

    def signed(self, url: str, secrets: RequestSecrets) -> SignedUrl:
        """Returns the web URL of a file, and how to be authenticated there. Raises: StorageError,
        StorageUnavailable."""
        return self._source(url).signed(url, secrets)

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
        """Uploads a file; see `Destination.put`."""
        destination = self._destination(target.kind)
        return destination.put(target, path, key, content_type, secrets=secrets, report=report)

    def url_of(self, target: UploadTarget, key: str) -> str:
        """Returns the URL that `put` will return. Raises: StorageError."""
        return self._destination(target.kind).url_of(target, key)

    def check(self, url: str) -> None:
        """Checks a URL of a request without any network access. Raises: UrlRefused."""
        if url.lower().startswith(("http://", "https://")) and not self._azure.holds(url):
            self._client.check(url)

    def check_target(self, target: UploadTarget, secrets: RequestSecrets) -> None:
        """Checks a target of a request without any network access. Raises: UrlRefused."""
        if target.kind is UploadKind.HTTP:
            self._client.check(secrets.complete(target.place))

    def check_secrets(self, secrets: RequestSecrets) -> None:
        """Checks the endpoints that the credentials of a request name. Raises: UrlRefused."""
        for credential in secrets.credentials:
            if credential.auth.endpoint is not None:
                self._client.check(credential.auth.endpoint)

    def _source(self, url: str) -> Source:
        scheme = url.partition("://")[0].lower()
        if scheme == "s3":
            return self._s3
        if scheme == "hf" or url.lower().startswith(f"{HUGGING_FACE}/"):
            return self._hugging_face
        if scheme not in ("http", "https"):
            raise StorageError("A URL of a file begins with https://, http://, s3:// or hf://")
        return self._azure if self._azure.holds(url) else self._http

    def _destination(self, kind: UploadKind) -> Destination:
        match kind:
            case UploadKind.S3:
                return self._s3
            case UploadKind.HUGGING_FACE:
                return self._hugging_face
            case UploadKind.AZURE:
                return self._azure
            case UploadKind.HTTP:
                return HttpDestination(self._client, self._http)

    @cached_property
    def _s3(self) -> "S3Access":
        from comfyui_workflow.storage.s3 import S3Access  # noqa: PLC0415 - imports boto3

        return S3Access(self._settings.s3, self._client.exchange)
