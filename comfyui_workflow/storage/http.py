"""Plain web servers: downloads that can be resumed, and uploads with PUT."""

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import quote

from comfyui_workflow.errors import (
    RemoteFileError,
    StorageError,
    StorageUnavailable,
    WebError,
    WebUnavailable,
)
from comfyui_workflow.files.partial_files import LocalPart
from comfyui_workflow.runs.credentials import Auth, RequestSecrets, read_glob, without_secrets
from comfyui_workflow.runs.upload_target import UploadTarget
from comfyui_workflow.safe_http.client import GuardedClient, HttpStream
from comfyui_workflow.storage.base import Report, SignedUrl, no_report

TIMEOUT_S = 60.0
"""For the headers of a response, and for a part of its body that comes too slowly."""
LEAST_UPLOAD_BYTES_PER_S = 16 * 1024
_UPLOAD_S = 120.0
_OK = 200
_PARTIAL = 206
_NOT_MODIFIED = 304
_RANGE_REFUSED = 416
_TRANSIENT = (408, 425, 429)
_PERMANENT = (501, 505)
"""The server cannot do what it is asked for, and will not learn it."""
_NO_PUT = (405, 501)


@dataclass(frozen=True, kw_only=True)
class HttpHeader:
    """A header of the settings, which authenticates this server at web servers."""

    name: str
    value: str = field(repr=False)
    url_pattern: str = "**"


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """`etag` is the version of the file for the next `If-None-Match`; None if the server tells none."""

    etag: str | None
    is_unchanged: bool = False


class HttpSource:
    """Signs web URLs with the credentials of the request, of the URL, or of the settings."""

    def __init__(self, header: HttpHeader | None = None) -> None:
        self._header = header

    def signed(self, url: str, secrets: RequestSecrets) -> SignedUrl:
        auth = secrets.auth_for(url)
        whole = secrets.complete(url)
        if auth is None and self._header is not None and read_glob(self._header.url_pattern).matches(url):
            return SignedUrl(url=whole, headers=self._header_of(whole, self._header))
        return authenticated(whole, auth)

    def _header_of(self, whole: str, header: HttpHeader) -> Mapping[str, str]:
        has_password = "@" in whole.partition("://")[2].partition("/")[0]
        return {} if has_password else {header.name: header.value}


class HttpDestination:
    """Uploads with PUT: `<url prefix>/<key>`."""

    def __init__(self, client: GuardedClient, source: HttpSource) -> None:
        self._client = client
        self._source = source

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
        shown = target.url_of(key)
        whole_prefix = secrets.complete(target.place)
        whole = UploadTarget(kind=target.kind, place=whole_prefix).url_of(key)
        signed = self._source.signed(
            shown, RequestSecrets(credentials=secrets.credentials, urls={shown: whole})
        )
        send_file(self._client, signed, path, {"Content-Type": content_type}, report)
        return shown


def send_file(
    client: GuardedClient,
    signed: SignedUrl,
    path: Path,
    headers: Mapping[str, str],
    report: Report,
) -> None:
    """Sends a file with PUT. Raises: StorageUnavailable, StorageError, UrlRefused."""
    try:
        with path.open("rb") as file:
            size_bytes = path.stat().st_size
            answer = client.exchange(
                "PUT",
                signed.url,
                _Reported(file, size_bytes, report) if size_bytes else b"",  # type: ignore[arg-type]
                {**headers, **signed.headers, "Content-Length": str(size_bytes)},
                timeout_s=_UPLOAD_S + size_bytes / LEAST_UPLOAD_BYTES_PER_S,
            )
    except OSError as error:
        raise StorageError(f"{path.name} cannot be read: {error.strerror}") from error
    except WebUnavailable as error:
        raise StorageUnavailable(f"{path.name} could not be uploaded: {error}") from error
    except WebError as error:
        raise StorageError(f"{path.name} could not be uploaded: {error}") from error
    if not 200 <= answer.status < 300:
        advice = ": it does not take files with PUT" if answer.status in _NO_PUT else ""
        raise storage_error(
            f"{path.name} could not be uploaded: the server answers with status {answer.status}{advice}",
            answer.status,
        )


def authenticated(url: str, auth: Auth | None) -> SignedUrl:
    """Adds the credential of a request to a web URL. Raises: StorageError for one that fits no web URL."""
    if auth is None:
        return SignedUrl(url=url)
    match auth.kind:
        case "bearer":
            return SignedUrl(url=url, headers={"Authorization": f"Bearer {auth.secret}"})
        case "basic":
            pair = b64encode(f"{auth.name}:{auth.secret}".encode()).decode()
            return SignedUrl(url=url, headers={"Authorization": f"Basic {pair}"})
        case "header":
            return SignedUrl(url=url, headers={auth.name: auth.secret})
        case "query":
            before, mark, after = url.partition("#")
            joint = "&" if "?" in before else "?"
            added = f"{quote(auth.name, safe='')}={quote(auth.secret, safe='')}"
            return SignedUrl(url=f"{before}{joint}{added}{mark}{after}")
        case _:
            raise StorageError(f"The credentials of type {auth.kind} are not for {without_secrets(url)}")


def said_by_library(text: object) -> str:
    """Returns the text of an error on one line, without the queries of URLs: they may be signatures."""
    return re.sub(r"(://[^\s?]*)\?[^\s)\"'>]*", r"\1?...", " ".join(str(text).split()))[:300]


def storage_error(message: str, status: int | None) -> StorageError:
    """Returns the error for an HTTP status: transient or not."""
    is_server_error = status is not None and status >= 500 and status not in _PERMANENT
    is_transient = status is None or is_server_error or status in _TRANSIENT
    return StorageUnavailable(message) if is_transient else StorageError(message)


def download(
    client: GuardedClient,
    signed: SignedUrl,
    part: LocalPart,
    *,
    report: Report,
    known_etag: str | None = None,
) -> Downloaded:
    """Downloads into a part, and resumes what it has if the file is still the same (`If-Range`). The number
    of bytes is checked. `known_etag`: nothing is downloaded if the file still has this version.

    Raises: UrlRefused; StorageError; StorageUnavailable; WebError; StoreError; Stopped."""
    kept_version = part.kept_version()
    kept_bytes = part.kept_bytes() if kept_version else 0
    headers = {"If-None-Match": known_etag} if known_etag else {}
    if kept_bytes and kept_version is not None:
        headers = {"Range": f"bytes={kept_bytes}-", "If-Range": kept_version}
    with client.stream(signed.url, headers, signed.headers, TIMEOUT_S) as stream:
        if stream.status == _NOT_MODIFIED and "If-None-Match" in headers:
            return Downloaded(etag=known_etag, is_unchanged=True)
        if stream.status != _RANGE_REFUSED or not kept_bytes:
            return _receive(stream, part, kept_bytes, kept_version, report)
    part.discard()  # it is longer than the file
    with client.stream(signed.url, {}, signed.headers, TIMEOUT_S) as stream:
        return _receive(stream, part, 0, None, report)


def _receive(
    stream: HttpStream, part: LocalPart, kept_bytes: int, kept_version: str | None, report: Report
) -> Downloaded:
    if stream.status not in (_OK, _PARTIAL):
        raise storage_error(_refusal(stream), stream.status)
    start, total_bytes = _position(stream, kept_bytes)
    version = kept_version if start else _version(stream)
    try:
        done_bytes = part.begin(total_bytes, version, most_kept=start)
        if done_bytes != start:
            raise StorageUnavailable(f"The part of {stream.origin} was changed during its download")
        report(done_bytes, total_bytes or 0)
        for piece in stream.pieces():
            done_bytes += len(piece)
            if total_bytes is not None and done_bytes > total_bytes:
                break
            part.write(piece)
            report(done_bytes, total_bytes or 0)
    except RemoteFileError as error:  # larger than the whole disk
        raise StorageError(str(error)) from error
    if total_bytes is not None and done_bytes != total_bytes:
        raise StorageUnavailable(
            f"{stream.origin} has sent {done_bytes} bytes of {total_bytes}: the connection was cut"
        )
    part.close()
    return Downloaded(etag=_version(stream) or version)


def _position(stream: HttpStream, kept_bytes: int) -> tuple[int, int | None]:
    """Returns (first byte of the response, size of the file). Raises: StorageError."""
    if stream.status == _OK:
        length = stream.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    unit, _, rest = stream.headers.get("Content-Range", "").partition(" ")
    span, _, size = rest.partition("/")
    first = span.partition("-")[0]
    if unit != "bytes" or first != str(kept_bytes):
        raise StorageError(f"{stream.origin} sends another part of the file than it was asked for")
    return kept_bytes, int(size) if size.isdecimal() else None


def _version(stream: HttpStream) -> str | None:
    """Returns the ETag if it is strong: `If-Range` accepts no other one."""
    etag = stream.headers.get("ETag")
    if etag and etag.startswith('"'):
        return etag
    return None


def _refusal(stream: HttpStream) -> str:
    advice = {
        401: ": it wants credentials",
        403: ": it does not allow the download with these credentials",
        404: ": there is no such file",
    }
    return f"{stream.origin} answers with status {stream.status}{advice.get(stream.status, '')}"


class _Reported:
    """A file whose reads are reported. `http.client` reads it in blocks."""

    def __init__(self, file: IO[bytes], size_bytes: int, report: Report) -> None:
        self._file = file
        self._size_bytes = size_bytes
        self._report = report
        self._done_bytes = 0

    def read(self, count: int = -1) -> bytes:
        piece = self._file.read(count)
        self._done_bytes += len(piece)
        self._report(self._done_bytes, self._size_bytes)
        return piece
