"""Downloads one file on the instance, with its own bandwidth.

The program `download_program` runs there; this module starts it, passes its progress on, and turns what it
says into errors. It continues where an earlier attempt stopped, of whichever server.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ConnectionFailed, ProvisionFailed, ProvisionUnavailable
from comfyui_workflow.parsing.untrusted import shown
from comfyui_workflow.provisioning.rules import DownloadRules
from comfyui_workflow.provisioning.sizes import duration_text, size_text
from comfyui_workflow.runs.credentials import NO_SECRETS, RequestSecrets
from comfyui_workflow.ssh.connection import Connection
from comfyui_workflow.storage.events import DOWNLOADED, TellEvent, file_data, tell_nobody
from comfyui_workflow.workflows.model_sources import key_of_url

_PROGRAM = Path(__file__).with_name("download_program.py")
_RECENT_S = 10.0
"""The speed is that of this time."""


@dataclass(frozen=True, kw_only=True)
class WantedFile:
    """`directory` is an absolute path on the instance; `name` is below it. `url` has no secrets."""

    url: str
    directory: str
    name: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class PlacedFile:
    path: str
    size: int
    sha256: str | None
    """None if the file was there already."""
    existed: bool


@dataclass(frozen=True, kw_only=True)
class Progress:
    done_bytes: int
    total_bytes: int | None
    bytes_per_s: float = 0.0
    is_check: bool = False
    """True while the content of the complete file is checked."""

    @property
    def left_s(self) -> float | None:
        if self.total_bytes is None or self.bytes_per_s <= 0 or self.is_check:
            return None
        return (self.total_bytes - self.done_bytes) / self.bytes_per_s


OnProgress = Callable[[Progress], None]


def download(
    connection: Connection,
    wanted: WantedFile,
    rules: DownloadRules,
    *,
    secrets: RequestSecrets = NO_SECRETS,
    stop: CancelToken,
    report: OnProgress,
    tell: TellEvent = tell_nobody,
) -> PlacedFile:
    """Returns when the file is complete, checked and in its place. Several callers may want one file: it is
    downloaded once.

    Raises: Stopped; ProvisionFailed; ProvisionUnavailable and ConnectionFailed if a further attempt may
    succeed; ProgramFailed."""
    refusal = rules.refusal(wanted.url, wanted.name)
    if refusal is not None:
        raise ProvisionFailed(f"{shown(wanted.name)} is not downloaded: {refusal}")
    signed = rules.signed(wanted.url, secrets)
    request = {
        "url": signed.url,
        "headers": dict(signed.headers),
        "hosts": rules.origins,
        "directory": wanted.directory,
        "name": wanted.name,
        "part": key_of_url(wanted.url)[:16],
        "size": wanted.size,
        "sha256": wanted.sha256,
    }
    meter, began_s = SpeedMeter(), time.monotonic()
    for said in connection.run_program(_PROGRAM.read_bytes(), request, stop=stop):
        if "placed" in said or "error" in said:
            placed = _outcome(wanted, said)
            if not placed.existed:
                data = file_data(wanted.url, placed.path, placed.size, time.monotonic() - began_s)
                tell(DOWNLOADED, data, connection.address.label)
            return placed
        progress = _progress(said, meter)
        if progress is not None:
            report(progress)
    raise ConnectionFailed(f"The download of {shown(wanted.name)} ended without a result")


class SpeedMeter:
    """Speed in the last seconds, in bytes per second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: list[tuple[float, int]] = []

    def speed(self, done_bytes: int) -> float:
        now_s = self._clock()
        if self._seen and done_bytes < self._seen[-1][1]:  # the download began again
            self._seen.clear()
        recent = [each for each in self._seen if each[0] > now_s - _RECENT_S]
        self._seen = [*(recent or self._seen[-1:]), (now_s, done_bytes)]
        began_s, began = self._seen[0]
        return (done_bytes - began) / (now_s - began_s) if now_s > began_s else 0.0


def _progress(said: Mapping[str, Any], meter: SpeedMeter) -> Progress | None:
    total = _count(said.get("total"))
    done, checked = _count(said.get("done")), _count(said.get("checked"))
    if done is not None:
        return Progress(done_bytes=done, total_bytes=total, bytes_per_s=meter.speed(done))
    if checked is not None:
        return Progress(done_bytes=checked, total_bytes=total, is_check=True)
    return None


def _outcome(wanted: WantedFile, said: Mapping[str, Any]) -> PlacedFile:
    """The instance is not trusted: a result of another shape is an error."""
    if "error" in said:
        kind = ProvisionUnavailable if said.get("is_transient") is True else ProvisionFailed
        raise kind(shown(said["error"]))
    path, size, digest = said["placed"], _count(said.get("size")), said.get("sha256")
    if not isinstance(path, str) or size is None:
        raise ProvisionFailed(f"The instance gives no usable answer about {shown(wanted.name)}")
    return PlacedFile(
        path=shown(path),
        size=size,
        sha256=digest if isinstance(digest, str) else None,
        existed=said.get("existed") is True,
    )


def _count(value: object) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
    return value if is_count else None  # type: ignore[return-value]


def progress_text(name: str, progress: Progress) -> str:
    """`Downloading x.safetensors: 1.20 GB of 6.94 GB, 85.0 MB/s, 68 s left`"""
    total = progress.total_bytes
    amount = size_text(progress.done_bytes) + (f" of {size_text(total)}" if total is not None else "")
    if progress.is_check:
        return f"Checking {name}: {amount}"
    parts = [amount]
    if progress.bytes_per_s > 0:
        parts.append(f"{size_text(progress.bytes_per_s)}/s")
    if progress.left_s is not None:
        parts.append(f"{duration_text(progress.left_s)} left")
    return f"Downloading {name} on the instance: {', '.join(parts)}"
