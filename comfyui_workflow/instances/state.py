"""Data of the state of an instance at one moment."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from comfyui_workflow.comfyui.system import Device
from comfyui_workflow.errors import OfferedKey


class Reachability(StrEnum):
    UNKNOWN = "unknown"
    """Not polled yet, or not monitored now."""
    CONNECTING = "connecting"
    READY = "ready"
    """The ComfyUI of the instance answers."""
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Prompts in ComfyUI's queue. `ours`: run ids of our prompts; `others`: number of all other prompts."""

    running: tuple[str, ...] = ()
    """Prompt ids."""
    pending: tuple[str, ...] = ()
    ours: tuple[str, ...] = ()
    others: int = 0

    @property
    def is_busy(self) -> bool:
        return bool(self.running or self.pending)


class PreparationStatus(StrEnum):
    RUNNING = "running"
    """The instance takes runs only afterwards."""
    DONE = "done"
    FAILED = "failed"
    """The instance takes runs nevertheless."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What the settings say about a ComfyUI that has just started: a manifest, a warm-up."""

    status: PreparationStatus
    message: str


@dataclass(frozen=True, kw_only=True)
class InstanceState:
    """State at the last poll. All times are UTC; None means unknown."""

    reachability: Reachability = Reachability.UNKNOWN
    trouble: str | None = None
    """The reason why the instance is unreachable; otherwise the last error, until the next success."""
    looked_at: datetime | None = None
    comfyui_version: str | None = None
    comfyui_port: int | None = None
    """Port on which ComfyUI was found."""
    devices: tuple[Device, ...] = ()
    prompts: Prompts | None = None
    round_trip_s: float | None = None
    host_key_fingerprint: str | None = None
    offered_key: OfferedKey | None = None
    """Set if the machine showed another host key than the known one; this is then the `trouble`."""
    connecting_since: datetime | None = None
    """Time when the monitor started to connect; the first attempt, if there were several."""
    connected_since: datetime | None = None
    memory_emptied_at: datetime | None = None
    """Time when ComfyUI was last told to unload its models, or was found to have restarted."""
    idle_since: datetime | None = None
    """Start of the current idle time (connected with an empty queue); None while the instance is busy."""

    preparation: Preparation | None = None
    """None if the settings ask for none."""

    @property
    def is_ready(self) -> bool:
        return self.reachability is Reachability.READY

    def idle_s(self, at: datetime) -> float:
        return 0.0 if self.idle_since is None else max(0.0, (at - self.idle_since).total_seconds())
