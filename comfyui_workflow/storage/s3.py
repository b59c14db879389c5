"""Amazon S3 and other services with the S3 API: downloads, uploads, and URLs for uploaded files."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
)

from comfyui_workflow.errors import StorageError, StorageUnavailable, UrlRefused, WebError
from comfyui_workflow.runs.credentials import Auth, RequestSecrets
from comfyui_workflow.runs.job import Bucket
from comfyui_workflow.runs.upload_target import UploadTarget
from comfyui_workflow.storage.base import Report, S3Account, Send, SignedUrl, no_report
from comfyui_workflow.storage.http import said_by_library

__all__ = ["Bucket", "S3Storage"]

URL_LIFETIME_S = 7 * 86_400
"""Seven days, the maximum of S3."""
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
TRIES = 4

_HOST_WITH_BUCKET = re.compile(
    r"(?P<bucket>.+)\."
    r"(?P<service>s3[.-].+"
    r"|[a-z0-9]+\.digitaloceanspaces\.com"
    r"|[0-9a-f]{32}(\.[a-z]+)?\.r2\.cloudflarestorage\.com)"
)
_HOST_WITH_REGION = re.compile(r"s3[.-](?P<region>[a-z]{2}(-[a-z]+)+-[0-9]+)\.")


@dataclass(frozen=True, kw_only=True)
class BucketAddress:
    """Address of a bucket. Its name is a part of the path of a request (path-style addressing)."""

    endpoint_url: str
    bucket_name: str
    region: str
    key_prefix: str = ""


def parse_endpoint(bucket: Bucket) -> BucketAddress:
    """Parses the endpoint URL of a bucket.

    The bucket's name comes from the configuration, the first part of the path, or the first part of the host;
    otherwise it is the month (`MM-YY`). Raises: StorageError."""
    try:
        url = urlsplit(bucket.endpoint_url)
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    if host is None or url.scheme not in ("http", "https"):
        raise StorageError(f"The endpoint of the bucket is not a URL: {bucket.endpoint_url[:200]}")
    first, _, rest = url.path.strip("/").partition("/")
    named = None if bucket.bucket_name or first else _HOST_WITH_BUCKET.fullmatch(host)
    service = named["service"] if named else host
    region = _HOST_WITH_REGION.search(service)
    return BucketAddress(
        endpoint_url=f"{url.scheme}://{_bracketed(service)}{f':{port}' if port else ''}",
        bucket_name=bucket.bucket_name or first or (named["bucket"] if named else time.strftime("%m-%y")),
        region=region["region"] if region else "us-east-1",
        key_prefix=f"{rest}/" if rest and not bucket.bucket_name else "",
    )


class S3Storage:
    """Uploads to a bucket. Thread-safe. `send` replaces the HTTP client of boto3."""

    def __init__(self, bucket: Bucket, send: Send | None = None) -> None:
        self._bucket = bucket
        self._send = send
        self._lock = threading.Lock()

    def put(self, path: Path, key: str, content_type: str) -> str:
        """Uploads a file and returns a URL that it can be read from for seven days. The upload is complete
        when this returns. Raises: StorageError."""
        address = parse_endpoint(self._bucket)
        whole_key = address.key_prefix + key
        named = {"Bucket": address.bucket_name, "Key": whole_key}
        try:
            client = self._client
            client.upload_file(
                str(path),
                address.bucket_name,
                whole_key,
                ExtraArgs={"ContentType": content_type},
                Config=TransferConfig(use_threads=False),  # boto3's threads would keep the server alive
            )
            size_bytes = client.head_object(Bucket=address.bucket_name, Key=whole_key)["ContentLength"]
            url: str = client.generate_presigned_url("get_object", Params=named, ExpiresIn=URL_LIFETIME_S)
        except (Boto3Error, BotoCoreError, ClientError, UrlRefused, OSError, ValueError) as error:
            raise StorageError(
                f"{path.name} could not be uploaded to the bucket {address.bucket_name}: {_reason(error)}"
            ) from error
        if size_bytes != path.stat().st_size:
            raise StorageError(f"{path.name} is incomplete in the bucket {address.bucket_name}")
        return url

    @cached_property
    def _client(self) -> Any:
        """The boto3 client, made once: loading boto3's description of S3 takes a tenth of a second, and must
        be done in one thread at a time."""
        address = parse_endpoint(self._bucket)
        account = S3Account(
            access_key_id=self._bucket.access_key_id,
            secret_access_key=self._bucket.secret_access_key,
            endpoint_url=address.endpoint_url,
            region=address.region,
        )
        with self._lock:
            return _new_client(account, self._send)


class S3Access:
    """Downloads from and uploads to `s3://bucket/key`, with the account of the settings or of the request.
    Thread-safe. `send` sends the requests to an endpoint that the request names."""

    def __init__(self, account: S3Account, send: Send) -> None:
        self._account = account
        self._send = send

    def signed(self, url: str, secrets: RequestSecrets) -> SignedUrl:
        bucket, key = _parts(secrets.complete(url))
        auth = secrets.auth_for(url)
        account, is_guarded = self._account_for(auth)
        with _telling(f"s3://{bucket}/{key}"):
            client = self._client(account, is_guarded)
            if account.endpoint_url is None:
                client.head_object(Bucket=bucket, Key=key)  # boto3 learns the region of the bucket
            params = {"Bucket": bucket, "Key": key}
            web: str = client.generate_presigned_url("get_object", Params=params, ExpiresIn=URL_LIFETIME_S)
        return SignedUrl(url=web, is_trusted=not is_guarded)

    def url_of(self, target: UploadTarget, key: str) -> str:
        return target.url_of(key)

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
        url = target.url_of(key)
        account = self._account_for(secrets.auth_for(url))
        done = _Counted(path.stat().st_size, report)
        with _telling(url):
            client = self._client(*account)
            client.upload_file(
                str(path),
                target.place,
                key,
                ExtraArgs={"ContentType": content_type},
                Callback=done.add,
                Config=TransferConfig(use_threads=False),  # boto3's threads would keep the server alive
            )
            size_bytes = client.head_object(Bucket=target.place, Key=key)["ContentLength"]
        if size_bytes != path.stat().st_size:
            raise StorageUnavailable(f"{url} is incomplete after its upload")
        return url

    def _account_for(self, auth: Auth | None) -> tuple[S3Account, bool]:
        """Returns the account, and True if the request chose its endpoint. Raises: StorageError."""
        if auth is None:
            return self._account, False
        if auth.kind != "s3":
            raise StorageError(f"The credentials of type {auth.kind} are not for URLs that begin with s3://")
        own = S3Account(
            access_key_id=auth.name,
            secret_access_key=auth.secret,
            session_token=auth.session_token,
            endpoint_url=auth.endpoint or self._account.endpoint_url,
            region=auth.region or self._account.region,
        )
        return own, auth.endpoint is not None

    def _client(self, account: S3Account, is_guarded: bool) -> Any:
        with _making:
            return _known_client(account, self._send if is_guarded else None)


class _Counted:
    """Sums up the bytes that boto3 reports."""

    def __init__(self, size_bytes: int, report: Report) -> None:
        self._size_bytes = size_bytes
        self._report = report
        self._done_bytes = 0

    def add(self, count: int) -> None:
        self._done_bytes += count
        self._report(self._done_bytes, self._size_bytes)


_making = threading.Lock()


@lru_cache(maxsize=8)
def _known_client(account: S3Account, send: Send | None) -> Any:
    return _new_client(account, send)


def _new_client(account: S3Account, send: Send | None) -> Any:
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=account.endpoint_url,
        region_name=account.region or "us-east-1",
        aws_access_key_id=account.access_key_id,
        aws_secret_access_key=account.secret_access_key,
        aws_session_token=account.session_token,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path" if account.endpoint_url else "auto"},
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"total_max_attempts": TRIES, "mode": "standard"},
            # Some other services with the S3 API do not support the newer checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    if send is not None:
        client.meta.events.register("before-send.s3", partial(_send_request, send))
    return client


@contextmanager
def _telling(url: str) -> Iterator[None]:
    """Turns boto3's errors into ours. Raises: StorageUnavailable, StorageError."""
    try:
        yield
    except NoCredentialsError as error:
        raise StorageError(
            f"{url}: this server has no credentials for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    except UrlRefused as error:
        raise StorageError(f"{url}: {error}") from error
    except (Boto3Error, BotoCoreError, ClientError, OSError, ValueError) as error:
        message = f"{url}: {_reason(error)}"
        raise (StorageUnavailable if _is_transient(error) else StorageError)(message) from error


def _is_transient(error: Exception) -> bool:
    cause = error.__context__ if isinstance(error, Boto3Error) else error
    if isinstance(cause, ClientError):
        status = cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or status in (408, 425, 429)
    return isinstance(cause, HTTPClientError | OSError)


def _parts(url: str) -> tuple[str, str]:
    """Returns (bucket, key). Raises: StorageError."""
    bucket, _, key = url.partition("://")[2].partition("/")
    if not bucket or not key:
        raise StorageError("A URL of S3 looks like s3://bucket/key")
    return bucket, key


def _send_request(send: Send, request: AWSPreparedRequest, **_: object) -> AWSResponse:
    """Sends a request of boto3 with `send`. Raises: UrlRefused; ConnectionError, after which boto3
    retries."""
    headers = {name: _text(value) for name, value in request.headers.items() if name != "Expect"}
    try:
        answer = send(request.method, request.url, request.body, headers)
    except WebError as error:
        raise ConnectionError(error=error) from error
    return AWSResponse(request.url, answer.status, answer.headers, _RawBody(answer.content))


@dataclass(frozen=True)
class _RawBody:
    """Body of a response, as boto3 reads it."""

    content: bytes

    def stream(self) -> Iterator[bytes]:
        yield self.content


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _reason(error: Exception) -> str:
    """Returns the reason of an error, without boto3's introduction and without any secret."""
    words = said_by_library(error)
    return words.rpartition(" operation: ")[2] or words
