"""Hugging Face: downloads through its web URLs, uploads with the official library.

The library is imported when it is used for the first time. A download needs only HTTP.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfyui_workflow.errors import StorageError, StorageUnavailable
from comfyui_workflow.runs.credentials import RequestSecrets
from comfyui_workflow.runs.upload_target import HUGGING_FACE, UploadTarget, hugging_face_url
from comfyui_workflow.storage.base import Report, SignedUrl, no_report
from comfyui_workflow.storage.http import authenticated, said_by_library, storage_error

INSTALL = "Hugging Face needs a library that is not installed: pip install 'comfyui-over-ssh[huggingface]'"
NO_TOKEN = "This server has no token of Hugging Face, which an upload needs: set HF_TOKEN"  # noqa: S105 - a sentence


@dataclass(frozen=True, kw_only=True)
class HuggingFaceAccount:
    token: str | None = field(default=None, repr=False)
    endpoint: str = HUGGING_FACE
    """Another server with the same API."""


class HuggingFace:
    """Downloads from and uploads to repositories. Thread-safe."""

    def __init__(self, account: HuggingFaceAccount) -> None:
        self._account = account
        self._is_trusted = account.endpoint != HUGGING_FACE

    def signed(self, url: str, secrets: RequestSecrets) -> SignedUrl:
        auth = secrets.auth_for(url)
        web = hugging_face_url(secrets.complete(url))
        if web is None:
            raise StorageError(
                "A URL of Hugging Face looks like https://huggingface.co/owner/repo/resolve/main/file"
            )
        web = self._account.endpoint + web[len(HUGGING_FACE) :]
        if auth is not None:
            return authenticated(web, auth)
        headers = {"Authorization": f"Bearer {self._account.token}"} if self._account.token else {}
        return SignedUrl(url=web, headers=headers, is_trusted=self._is_trusted)

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
        """The library reports no progress, and cannot be stopped in the middle of a file."""
        url = target.url_of(key)
        auth = secrets.auth_for(url)
        token = auth.secret if auth is not None and auth.kind == "bearer" else self._account.token
        if token is None:
            raise StorageError(NO_TOKEN)
        size_bytes = path.stat().st_size
        report(0, size_bytes)
        hub = _library()
        with _telling(url):
            hub.HfApi(endpoint=self._account.endpoint, token=token).upload_file(
                path_or_fileobj=str(path),
                path_in_repo=key,
                repo_id=target.place,
                repo_type=target.repo_type,
                revision=target.revision,
                commit_message=f"Upload {path.name}",
            )
        report(size_bytes, size_bytes)
        return url


def _library() -> Any:
    """Raises: StorageError with what to install."""
    try:
        import huggingface_hub  # noqa: PLC0415 - an extra, and slow to import
        from huggingface_hub.utils import disable_progress_bars  # noqa: PLC0415
    except ImportError as error:
        raise StorageError(INSTALL) from error
    disable_progress_bars()
    return huggingface_hub


@contextmanager
def _telling(url: str) -> Iterator[None]:
    """Turns the errors of the library into ours. Raises: StorageUnavailable, StorageError."""
    from huggingface_hub import errors  # noqa: PLC0415 - as above

    try:
        yield
    except errors.HTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        raise storage_error(f"{url}: {_reason(error, status)}", status) from error
    except ValueError as error:
        raise StorageError(f"{url}: {said_by_library(error)}") from error
    except (OSError, RuntimeError) as error:  # its native code raises these for all errors of the network
        raise StorageUnavailable(f"{url}: {said_by_library(error)}") from error


def _reason(error: Exception, status: int | None) -> str:
    """The library's texts have URLs and ids of requests in them: the last line says what is wrong."""
    if status is None:
        return f"Hugging Face cannot be reached ({type(error).__name__})"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = re.sub(r"\s*\(Request ID:.*?\)", "", lines[-1]) if lines else ""
    return f"Hugging Face answers with status {status}: {said_by_library(last)}"
