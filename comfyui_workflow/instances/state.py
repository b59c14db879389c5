"""What is known of an instance at a moment, as data."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from comfyui_workflow.comfyui.system import Device
from comfyui_workflow.errors import OfferedKey


class Reachability(StrEnum):
    UNKNOWN = "unknown"
    """Nobody has looked."""
    CONNECTING = "connecting"
    READY = "ready"
    """Its ComfyUI answers."""
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """ComfyUI's queue. `ours` are those of our runs, by workflow id; `others` is how many are not."""

    running: tuple[str, ...] = ()
    """Prompt ids."""
    pending: tuple[str, ...] = ()
    ours: tuple[str, ...] = ()
    others: int = 0

    @property
    def is_busy(self) -> bool:
        return bool(self.running or self.pending)


@dataclass(frozen=True, kw_only=True)
class InstanceState:
    """All times are UTC; `None` is what is not known."""

    reachability: Reachability = Reachability.UNKNOWN
    trouble: str | None = None
    """Why it is not reachable now; else the last error, until the next success."""
    looked_at: datetime | None = None
    comfyui_version: str | None = None
    devices: tuple[Device, ...] = ()
    prompts: Prompts | None = None
    round_trip_s: float | None = None
    host_key_fingerprint: str | None = None
    offered_key: OfferedKey | None = None
    """Where the machine showed another host key than the known one, which is its trouble."""
    connecting_since: datetime | None = None
    """Since when somebody wants it who knows nothing of it yet."""
    connected_since: datetime | None = None
    memory_emptied_at: datetime | None = None
    """When its ComfyUI was last told to unload models, or found to be another one than before."""
    idle_since: datetime | None = None
    """Since when its queue has been empty while it was connected; None while it works."""

    @property
    def is_ready(self) -> bool:
        return self.reachability is Reachability.READY

    def idle_s(self, at: datetime) -> float:
        return 0.0 if self.idle_since is None else max(0.0, (at - self.idle_since).total_seconds())
