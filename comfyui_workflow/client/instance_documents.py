"""What the routes of the named instances answer, as far as a client looks at it; `raw` has all of it."""

from datetime import datetime
from typing import Any

from msgspec import field

from comfyui_workflow.client.documents import Document


class DeviceDocument(Document, frozen=True, kw_only=True):
    """Memory in bytes."""

    name: str
    type: str
    index: int | None = None
    vram_total: int | None = None
    vram_free: int | None = None


class PromptsDocument(Document, frozen=True, kw_only=True):
    """`ours` by workflow id; `others` is how many are not of this server."""

    running: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    ours: tuple[str, ...] = ()
    others: int = 0


class HostKeyDocument(Document, frozen=True, kw_only=True):
    """Fingerprints: of the key that was known, and of the one that the machine showed instead."""

    known: str | None = None
    offered: str | None = None


class StateDocument(Document, frozen=True, kw_only=True):
    """What was last seen of an instance."""

    reachability: str
    """`unknown` (nobody has looked), `connecting`, `ready`, `unreachable`."""
    trouble: str | None = None
    looked_at: datetime | None = None
    comfyui_version: str | None = None
    devices: tuple[DeviceDocument, ...] = ()
    prompts: PromptsDocument | None = None
    round_trip_s: float | None = None
    host_key_fingerprint: str | None = None
    host_key: HostKeyDocument | None = None
    connected_since: datetime | None = None
    idle_since: datetime | None = None
    idle_s: float = 0.0


class LocalPortDocument(Document, frozen=True, kw_only=True):
    """`trouble`: why nothing listens there."""

    port: int
    is_listening: bool = False
    trouble: str | None = None
    open_requests: int = 0
    open_sockets: int = 0


class InstanceDocument(Document, frozen=True, kw_only=True):
    """A named instance. `notices` and `unfinished_runs` (that name it) come with it when it is changed."""

    id: str
    name: str
    ssh_connection: str
    comfyui_port: int
    comfyui_input_dir: str
    comfyui_output_dir: str
    enabled: bool
    tags: tuple[str, ...] = ()
    price_per_hour: float | None = None
    host_key: str | None = None
    local_port: int | None = None
    keep_connected: bool = False
    state: StateDocument
    local_port_state: LocalPortDocument | None = None
    idle_warning: str | None = None
    """A sentence, once it has stood idle for long."""
    notices: tuple[str, ...] = ()
    unfinished_runs: int = 0
    raw: dict[str, Any] = field(default_factory=dict)


class InstanceListDocument(Document, frozen=True, kw_only=True):
    """`trouble`: why the file that they are kept in cannot be read as it is now."""

    instances: tuple[InstanceDocument, ...]
    trouble: str | None = None
    raw: dict[str, Any]


class RemovalDocument(Document, frozen=True, kw_only=True):
    id: str
    message: str
    unfinished_runs: int = 0
    raw: dict[str, Any]


class QueuedPromptDocument(Document, frozen=True, kw_only=True):
    """`position`: how many go before it."""

    prompt_id: str
    workflow_id: str | None = None
    position: int = 0


class QueueDocument(Document, frozen=True, kw_only=True):
    """`pending` in the order they will run."""

    running: tuple[QueuedPromptDocument, ...]
    pending: tuple[QueuedPromptDocument, ...]
    raw: dict[str, Any]


class InterruptionDocument(Document, frozen=True, kw_only=True):
    message: str
    interrupted: tuple[QueuedPromptDocument, ...] = ()
    raw: dict[str, Any]


class SpentDocument(Document, frozen=True, kw_only=True):
    """Seconds and money; None for money where no price is known."""

    runs: int = 0
    gpu_seconds: float = 0.0
    run_cost: float | None = None
    connected_s: float = 0.0
    busy_s: float = 0.0
    idle_s: float = 0.0
    idle_cost: float | None = None


class InstanceCostsDocument(SpentDocument, frozen=True, kw_only=True):
    """What an instance has cost since it came into the list."""

    id: str
    name: str
    price_per_hour: float | None = None


class CostsDocument(Document, frozen=True, kw_only=True):
    """`removed` is what all instances have cost that are not in the list any more; the total has it too."""

    instances: tuple[InstanceCostsDocument, ...]
    removed: SpentDocument = SpentDocument()
    total: SpentDocument
    raw: dict[str, Any]
