"""Uploads outputs to a bucket of Amazon S3 or of another service with the S3 API, and makes URLs for them."""

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectionError

from comfyui_workflow.errors import StorageError, UrlRefused, WebError
from comfyui_workflow.runs.job import Bucket
from comfyui_workflow.storage.base import Send

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
        with self._lock:
            client = boto3.session.Session().client(
                "s3",
                endpoint_url=address.endpoint_url,
                region_name=address.region,
                aws_access_key_id=self._bucket.access_key_id,
                aws_secret_access_key=self._bucket.secret_access_key,
                config=Config(
                    signature_version="s3v4",
                    s3={"addressing_style": "path"},
                    connect_timeout=CONNECT_TIMEOUT_S,
                    read_timeout=READ_TIMEOUT_S,
                    retries={"total_max_attempts": TRIES, "mode": "standard"},
                    # Some other services with the S3 API do not support the newer checksums.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
            if self._send is not None:
                client.meta.events.register("before-send.s3", partial(_send_request, self._send))
            return client


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
    words = " ".join(str(error).split())
    return words.rpartition(" operation: ")[2] or words
