"""Events of transfers, for the system webhook: their names and data are those of comfyui-api."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from comfyui_workflow.runs.credentials import without_secrets

DOWNLOADED = "file_downloaded"
UPLOADED = "file_uploaded"
DELETED = "file_deleted"


class TellEvent(Protocol):
    def __call__(self, event: str, data: Mapping[str, Any], instance: str | None = None, /) -> None:
        """Returns at once. `instance` is the label of the machine that has the file; None for this one."""


def tell_nobody(event: str, data: Mapping[str, Any], instance: str | None = None, /) -> None:
    """For servers without a system webhook."""


def file_data(url: str, path: Path | str, size: int, duration_s: float | None = None) -> dict[str, Any]:
    """Returns the data of an event. `url` may have secrets, which are left out."""
    data = {"url": without_secrets(url), "local_path": str(path), "size": size}
    return data if duration_s is None else {**data, "duration": round(duration_s, 3)}
