"""Azure Blob Storage, with the official SDK. The SDK is imported when it is used for the first time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import unquote, urlsplit

from comfyui_workflow.errors import StorageError
from comfyui_workflow.runs.credentials import RequestSecrets
from comfyui_workflow.runs.upload_target import AZURE_SUFFIX, UploadTarget
from comfyui_workflow.storage.base import Report, SignedUrl, no_report
from comfyui_workflow.storage.http import authenticated, said_by_library, storage_error

INSTALL = "Azure Blob Storage needs a library that is not installed: pip install 'comfyui-over-ssh[azure]'"
INSTALL_IDENTITY = (
    "Azure Blob Storage has no key here: set AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY or "
    "AZURE_STORAGE_SAS_TOKEN, or pip install azure-identity for the identity of this machine"
)
NO_ACCOUNT = (
    "This server has no account of Azure Blob Storage: set AZURE_STORAGE_CONNECTION_STRING, or "
    "AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY"
)
SIGNED_FOR = timedelta(days=1)
TIMEOUT_S = 60
PIECE_BYTES = 4 * 1024 * 1024
_SCOPE = "https://storage.azure.com/.default"
_BLOB_API = "2021-08-06"


@dataclass(frozen=True, kw_only=True)
class AzureAccount:
    """The account of the settings. The first of connection string, key, SAS token and the identity of the
    machine is used."""

    connection_string: str | None = field(default=None, repr=False)
    account: str | None = None
    key: str | None = field(default=None, repr=False)
    sas_token: str | None = field(default=None, repr=False)

    def __bool__(self) -> bool:
        return bool(self.connection_string or self.account)

    @property
    def endpoint(self) -> str | None:
        """URL of the account, without a slash at its end; None if there is no account."""
        parts = self.parts
        if "blobendpoint" in parts:
            return parts["blobendpoint"].rstrip("/")
        if parts.get("usedevelopmentstorage") == "true":
            return "http://127.0.0.1:10000/devstoreaccount1"
        name = parts.get("accountname") or self.account
        scheme = parts.get("defaultendpointsprotocol", "https")
        suffix = parts.get("endpointsuffix", AZURE_SUFFIX.removeprefix(".blob."))
        return f"{scheme}://{name}.blob.{suffix}" if name else None

    @property
    def parts(self) -> dict[str, str]:
        """The parts of the connection string, by their names in small letters."""
        pairs = (each.partition("=") for each in (self.connection_string or "").split(";") if each)
        return {name.strip().lower(): value.strip() for name, _, value in pairs}


class AzureBlobs:
    """Downloads from and uploads to the account of the settings. Thread-safe."""

    def __init__(self, account: AzureAccount) -> None:
        self._account = account
        self._lock = Lock()

    def holds(self, url: str) -> bool:
        """True for the URL of a blob of the account, if it has no signature of its own."""
        endpoint = self._account.endpoint
        return endpoint is not None and url.lower().startswith(f"{endpoint.lower()}/") and "sig=" not in url

    def signed(self, url: str, secrets: RequestSecrets) -> SignedUrl:
        auth = secrets.auth_for(url)
        if auth is not None:
            return authenticated(secrets.complete(url), auth)
        container, blob = self._names(url)
        plain = url.partition("?")[0]
        with _telling(url):
            if self._sas_token is not None:
                return SignedUrl(url=f"{plain}?{self._sas_token}", is_trusted=True)
            key = self._key
            if key is None:
                return SignedUrl(url=plain, headers=self._token_header(), is_trusted=True)
            sdk = _sdk()
            token: str = sdk.generate_blob_sas(
                account_name=self._service.account_name,
                container_name=container,
                blob_name=blob,
                account_key=key,
                permission=sdk.BlobSasPermissions(read=True),
                expiry=datetime.now(UTC) + SIGNED_FOR,
            )
        return SignedUrl(url=f"{plain}?{token}", is_trusted=True)

    def url_of(self, target: UploadTarget, key: str) -> str:
        blob_path = target.url_of(key).removeprefix("azure://")
        if self._account.endpoint is None:
            raise StorageError(NO_ACCOUNT)
        return f"{self._account.endpoint}/{blob_path}"

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
        url = self.url_of(target, key)
        sdk, size_bytes = _sdk(), path.stat().st_size
        with _telling(url), path.open("rb") as file:
            client = self._service.get_blob_client(target.place, key)
            client.upload_blob(
                file,
                length=size_bytes,
                overwrite=True,
                content_settings=sdk.ContentSettings(content_type=content_type),
                progress_hook=lambda done_bytes, _: report(done_bytes, size_bytes),
                max_concurrency=1,
                connection_timeout=TIMEOUT_S,
                read_timeout=TIMEOUT_S,
            )
            there_bytes = client.get_blob_properties().size
        if there_bytes != size_bytes:
            raise storage_error(f"{url} is incomplete after its upload", None)
        return url

    def _names(self, url: str) -> tuple[str, str]:
        endpoint = self._account.endpoint or ""
        below = unquote(urlsplit(url).path)[len(urlsplit(endpoint).path) :].lstrip("/")
        container, _, blob = below.partition("/")
        if not container or not blob:
            raise StorageError(f"A URL of Azure looks like {endpoint}/container/blob")
        return container, blob

    @property
    def _sas_token(self) -> str | None:
        token = self._account.parts.get("sharedaccesssignature")
        if token is None and not self._account.connection_string and not self._account.key:
            token = self._account.sas_token
        return None if token is None else token.lstrip("?")

    @property
    def _key(self) -> str | None:
        """The account key, from the settings or the connection string."""
        return getattr(self._service.credential, "account_key", None)

    def _token_header(self) -> dict[str, str]:
        token = _default_identity().get_token(_SCOPE).token
        return {"Authorization": f"Bearer {token}", "x-ms-version": _BLOB_API}

    @cached_property
    def _service(self) -> Any:
        sdk, account = _sdk(), self._account
        if not account:
            raise StorageError(NO_ACCOUNT)
        options = {"max_block_size": PIECE_BYTES, "max_single_put_size": PIECE_BYTES, "retry_total": 2}
        with self._lock:
            if account.connection_string:
                return sdk.BlobServiceClient.from_connection_string(account.connection_string, **options)
            credential = self._sas_token or account.key or _default_identity()
            return sdk.BlobServiceClient(account.endpoint, credential=credential, **options)


def _sdk() -> Any:
    """Raises: StorageError with what to install."""
    try:
        from azure.storage import blob  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise StorageError(INSTALL) from error
    return blob


def _default_identity() -> Any:
    try:
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - not even an extra
    except ImportError as error:
        raise StorageError(INSTALL_IDENTITY) from error
    return DefaultAzureCredential()


@contextmanager
def _telling(url: str) -> Iterator[None]:
    """Turns the errors of the SDK into ours. Raises: StorageUnavailable, StorageError."""
    _sdk()
    from azure.core.exceptions import AzureError, HttpResponseError  # noqa: PLC0415 - as above

    shown = url.partition("?")[0]
    try:
        yield
    except HttpResponseError as error:
        reason = said_by_library(error.reason or error.message or "")
        raise storage_error(f"{shown}: {reason}", error.status_code) from error
    except AzureError as error:
        raise storage_error(f"{shown}: {said_by_library(error.message)}", None) from error
    except (OSError, ValueError) as error:
        raise StorageError(f"{shown}: {said_by_library(error)}") from error
