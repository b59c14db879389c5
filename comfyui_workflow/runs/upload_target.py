"""Where the outputs of a run are uploaded to, and which input files are downloaded from where. Pure.

The fields are those of comfyui-api: `s3`, `hf_upload`, `azure_blob_upload`, `http_upload`, the first of them
that is present. A target can also be a URL: `s3://bucket/prefix`. A target has no secrets: those are in the
`RequestSecrets` of the request.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from comfyui_workflow.errors import InputNotDownloaded, InvalidRequest, ProvisionFailed, UploadFailed
from comfyui_workflow.runs.credentials import without_secrets

AZURE_SUFFIX = ".blob.core.windows.net"
HUGGING_FACE = "https://huggingface.co"
UPLOAD_FAILED = UploadFailed.code
"""Error code of a run whose outputs are on this machine, but could not be uploaded."""
INPUT_NOT_DOWNLOADED = InputNotDownloaded.code
"""Error code of a run that was not submitted, because an input could not be downloaded from its URL."""
MODEL_NOT_DOWNLOADED = ProvisionFailed.code
"""Error code of a run that was not submitted, because the instance could not get what the workflow needs."""
LONGEST_PREFIX = 900
"""Bytes. A key of S3 has at most 1024."""


class UploadKind(StrEnum):
    """The kinds of storage, by their fields in a request, in the order of precedence."""

    S3 = "s3"
    HUGGING_FACE = "hf_upload"
    AZURE = "azure_blob_upload"
    HTTP = "http_upload"


@dataclass(frozen=True, kw_only=True)
class UploadTarget:
    kind: UploadKind
    place: str
    """The bucket, repository, container, or URL prefix; the URL without its secrets."""
    prefix: str = ""
    """Prefix of the keys, or directory of the repository; without slashes at its ends."""
    repo_type: str = "model"
    revision: str = "main"
    is_async: bool | None = None
    """The client waits for its answer without the upload. None: the request does not say."""
    by_run: bool = True
    """The files of each run have a directory of their own, so that no run replaces a file of another."""

    def key(self, run_id: str, relative_path: str) -> str:
        """Returns the key of an output. It is the same in every attempt."""
        parts = (self.prefix, run_id if self.by_run else "", relative_path)
        return "/".join(part for part in parts if part)

    def url_of(self, key: str) -> str:
        """Returns the URL of a key, without secrets. The URL of Azure has no account, which is a setting."""
        match self.kind:
            case UploadKind.S3:
                return f"s3://{self.place}/{key}"
            case UploadKind.HUGGING_FACE:
                folder = "" if self.repo_type == "model" else f"{self.repo_type}s/"
                revision = quote(self.revision, safe="")
                return f"{HUGGING_FACE}/{folder}{self.place}/resolve/{revision}/{quote(key)}"
            case UploadKind.AZURE:
                return f"azure://{self.place}/{quote(key)}"
            case UploadKind.HTTP:
                return joined_url(self.place, key)

    @property
    def shown(self) -> str:
        """The target in one word, for messages."""
        return self.url_of(self.prefix).rstrip("/")


@dataclass(frozen=True, kw_only=True)
class InputDownload:
    """An input file that is downloaded before its run uses it."""

    url: str
    """Without secrets."""
    path: str
    """Local path of the downloaded file."""


@dataclass(frozen=True, kw_only=True)
class ReadUpload:
    """A parsed target, and the complete URLs by their shown forms."""

    target: UploadTarget | None = None
    urls: Mapping[str, str] = field(default_factory=dict, repr=False)


def read_upload(given: object, *, by_run: bool = True) -> ReadUpload:
    """Parses the target in an object with one of the four fields, or in a URL. Other fields of the object are
    not looked at: it may be a whole request. Raises: InvalidRequest."""
    if given is None:
        return ReadUpload()
    if isinstance(given, str):
        return _read_url(given, by_run=by_run)
    if not isinstance(given, dict):
        raise InvalidRequest(f"upload must be a URL, or an object with one of {', '.join(UploadKind)}")
    kind = next((each for each in UploadKind if given.get(each) is not None), None)
    return ReadUpload() if kind is None else _read_field(kind, given[kind], by_run=by_run)


def check_storage_url(url: str) -> str:
    """Returns the URL. Raises: InvalidRequest if it names no file."""
    if len(url) > 8192 or not url.isprintable() or " " in url:
        raise InvalidRequest("A URL has at most 8192 characters, and no spaces")
    name_of_url(url)
    return url


def name_of_url(url: str) -> str:
    """Returns the path of the file with the directories in the URL: `bucket/dir/photo.png`. Raises:
    InvalidRequest if the URL names no file."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host:
        raise InvalidRequest(f"The URL cannot be read: {without_secrets(url)[:200]}")
    path = unquote(parts.path)
    if not path.rpartition("/")[2].strip():
        raise InvalidRequest(f"The URL names no file: {without_secrets(url)[:200]}")
    return path.lstrip("/")


def hugging_face_url(url: str) -> str | None:
    """Returns the URL to download a file of Hugging Face from; None for any other URL.

    `hf://owner/repo/file`, `hf://datasets/owner/repo@revision/dir/file`, and the URLs of the page (`blob`)
    are accepted. Raises: InvalidRequest."""
    if url.lower().startswith("hf://"):
        return _resolve_url(url)
    if not re.match(rf"(?i){re.escape(HUGGING_FACE)}/", url):
        return None
    return re.sub(r"^(https://[^/]+/(?:datasets/|spaces/)?[^/]+/[^/]+)/blob/", r"\1/resolve/", url)


def _resolve_url(url: str) -> str:
    kind, repo, revision, path = _parts_of_hf(url)
    if not path:
        raise InvalidRequest(f"The URL names no file: {url[:200]}")
    folder = "" if kind == "model" else f"{kind}s/"
    return f"{HUGGING_FACE}/{folder}{repo}/resolve/{quote(revision, safe='')}/{quote(path)}"


_HF = re.compile(
    r"(?i:hf)://(?:(?P<kind>datasets|spaces)/)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.*))?"
)


def _parts_of_hf(url: str) -> tuple[str, str, str, str]:
    """Returns (kind, repository, revision, path). Raises: InvalidRequest."""
    found = _HF.fullmatch(url.split("?", maxsplit=1)[0])
    if found is None:
        raise InvalidRequest(f"A URL of Hugging Face looks like hf://owner/repo/path, not: {url[:200]}")
    kind = (found["kind"] or "models").removesuffix("s")
    return kind, found["repo"], unquote(found["revision"] or "main"), unquote(found["path"] or "")


def joined_url(prefix: str, key: str) -> str:
    """Returns `prefix/key`; a query stays at the end."""
    before, mark, query = prefix.partition("?")
    return f"{before.rstrip('/')}/{quote(key)}{mark}{query}"


def _read_url(url: str, *, by_run: bool) -> ReadUpload:
    parts = _split(url)
    path = unquote(parts.path).strip("/")
    if parts.scheme == "s3":
        return _plain(UploadKind.S3, _name(parts.netloc, "bucket"), path, by_run)
    if parts.scheme == "hf":
        kind, repo, revision, directory = _parts_of_hf(url)
        target = UploadTarget(
            kind=UploadKind.HUGGING_FACE,
            place=repo,
            prefix=_prefix(directory, "upload"),
            repo_type=_repo_type(kind),
            revision=revision,
            by_run=by_run,
        )
        return ReadUpload(target=target)
    if (parts.hostname or "").endswith(AZURE_SUFFIX) and not parts.query:
        container, _, prefix = path.partition("/")
        return _plain(UploadKind.AZURE, _name(container, "container"), prefix, by_run)
    return _http({"url_prefix": url}, by_run=by_run, where="upload")


def _plain(kind: UploadKind, place: str, prefix: str, by_run: bool) -> ReadUpload:
    target = UploadTarget(kind=kind, place=place, prefix=_prefix(prefix, "upload"), by_run=by_run)
    return ReadUpload(target=target)


def _split(url: str) -> Any:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in ("s3", "hf", "http", "https") or not parts.netloc:
        raise InvalidRequest(
            "upload must be a URL such as s3://bucket/prefix, hf://owner/repo/directory, "
            "https://account.blob.core.windows.net/container/prefix or https://host/prefix"
        )
    return parts


def _read_field(kind: UploadKind, given: object, *, by_run: bool) -> ReadUpload:
    if not isinstance(given, dict):
        raise InvalidRequest(f"{kind} must be an object")
    if kind is UploadKind.HTTP:
        return _http(given, by_run=by_run, where=kind.value)
    place_field, prefix_field = _FIELDS[kind]
    is_hugging_face = kind is UploadKind.HUGGING_FACE
    place = _text(given, place_field, kind)
    target = UploadTarget(
        kind=kind,
        place=_repo(place) if is_hugging_face else _name(place, place_field),
        prefix=_prefix(_text(given, prefix_field, kind, is_optional=True), f"{kind}.{prefix_field}"),
        repo_type=_repo_type(_text(given, "repo_type", kind, is_optional=True) or "model"),
        revision=_text(given, "revision", kind, is_optional=True) or "main",
        is_async=_flag(given, kind),
        by_run=by_run,
    )
    return ReadUpload(target=target)


_FIELDS = {
    UploadKind.S3: ("bucket", "prefix"),
    UploadKind.HUGGING_FACE: ("repo", "directory"),
    UploadKind.AZURE: ("container", "blob_prefix"),
}
"""The fields for the place and for the prefix."""


def upload_field(target: UploadTarget) -> dict[str, Any]:
    """Returns the field of a request that names this target."""
    others: dict[str, Any] = {} if target.is_async is None else {"async": target.is_async}
    if target.kind is UploadKind.HTTP:
        return {target.kind.value: {"url_prefix": target.place, **others}}
    if target.kind is UploadKind.HUGGING_FACE:
        others |= {"repo_type": target.repo_type, "revision": target.revision}
    place_field, prefix_field = _FIELDS[target.kind]
    return {target.kind.value: {place_field: target.place, prefix_field: target.prefix, **others}}


def _http(given: Mapping[str, Any], *, by_run: bool, where: str) -> ReadUpload:
    url = _text(given, "url_prefix", where)
    if not re.match(r"(?i)https?://[^/]", url) or not url.isprintable() or " " in url or len(url) > 8192:
        raise InvalidRequest(f"{where}.url_prefix must be a URL that begins with http:// or https://")
    shown = without_secrets(url)
    target = UploadTarget(kind=UploadKind.HTTP, place=shown, is_async=_flag(given, where), by_run=by_run)
    return ReadUpload(target=target, urls={} if shown == url else {shown: url})


def _text(given: Mapping[str, Any], name: str, where: str, *, is_optional: bool = False) -> str:
    value = given.get(name)
    if value is None or value == "":
        if not is_optional:
            raise InvalidRequest(f"{where}.{name} is required")
        return ""
    if not isinstance(value, str) or not value.isprintable() or len(value) > 8192:
        raise InvalidRequest(f"{where}.{name} must be a text")
    return value


def _flag(given: Mapping[str, Any], where: str) -> bool | None:
    value = given.get("async")
    if value is not None and not isinstance(value, bool):
        raise InvalidRequest(f"{where}.async must be true or false")
    return value


def _name(text: str, what: str) -> str:
    """A bucket or a container."""
    if not re.fullmatch(r"[A-Za-z0-9$][\w.-]{1,253}", text):
        raise InvalidRequest(f"This is not the name of a {what}: {text[:100]}")
    return text


def _repo(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", text):
        raise InvalidRequest(f"This is not the name of a repository (owner/name): {text[:100]}")
    return text


def _repo_type(text: str) -> str:
    if text not in ("model", "dataset"):
        raise InvalidRequest("repo_type must be model or dataset")
    return text


def _prefix(text: str, where: str) -> str:
    """Returns the prefix without slashes at its ends. Raises: InvalidRequest for one that leads elsewhere."""
    parts = [part for part in text.split("/") if part]
    if any(part in (".", "..") for part in parts) or len(text.encode()) > LONGEST_PREFIX:
        raise InvalidRequest(f"{where} must be a path without . and .., of at most {LONGEST_PREFIX} bytes")
    return "/".join(parts)
