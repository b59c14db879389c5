"""Response documents of the instance routes: the fields that a client uses; `raw` has the whole response."""

from datetime import datetime
from typing import Any

from msgspec import field

from comfyui_workflow.client.documents import Document


class DeviceDocument(Document, frozen=True, kw_only=True):
    """A GPU or other device; memory in bytes."""

    name: str
    type: str
    index: int | None = None
    vram_total: int | None = None
    vram_free: int | None = None


class PromptsDocument(Document, frozen=True, kw_only=True):
    """Prompts in the queue. `ours`: run ids of the prompts of this server; `others`: number of other
    prompts."""

    running: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    ours: tuple[str, ...] = ()
    others: int = 0


class HostKeyDocument(Document, frozen=True, kw_only=True):
    """Fingerprints of the known host key, and of the different one that the machine showed."""

    known: str | None = None
    offered: str | None = None


class PreparationDocument(Document, frozen=True, kw_only=True):
    """What the settings ask for after each start of ComfyUI. `status`: `running`, `done` or `failed`."""

    status: str
    message: str


class StateDocument(Document, frozen=True, kw_only=True):
    """State of an instance at the last poll."""

    reachability: str
    """`unknown` (not polled yet), `connecting`, `ready` or `unreachable`."""
    trouble: str | None = None
    looked_at: datetime | None = None
    comfyui_version: str | None = None
    comfyui_port: int | None = None
    devices: tuple[DeviceDocument, ...] = ()
    prompts: PromptsDocument | None = None
    round_trip_s: float | None = None
    host_key_fingerprint: str | None = None
    host_key: HostKeyDocument | None = None
    connected_since: datetime | None = None
    idle_since: datetime | None = None
    idle_s: float = 0.0
    preparation: PreparationDocument | None = None


class LocalPortDocument(Document, frozen=True, kw_only=True):
    """State of a local port. `trouble`: the reason why the port is not open."""

    port: int
    is_listening: bool = False
    trouble: str | None = None
    open_requests: int = 0
    open_sockets: int = 0


class InstanceDocument(Document, frozen=True, kw_only=True):
    """A named instance. `notices`, and `unfinished_runs` (number of unfinished runs that name it), are sent
    when it is changed."""

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
    comfyui_login: str | None = None
    """`token` or `password`; None without a login."""
    state: StateDocument
    local_port_state: LocalPortDocument | None = None
    idle_warning: str | None = None
    """Sentence, if the instance has been idle for a long time."""
    notices: tuple[str, ...] = ()
    unfinished_runs: int = 0
    raw: dict[str, Any] = field(default_factory=dict)


class InstanceListDocument(Document, frozen=True, kw_only=True):
    """All named instances. `trouble`: the reason why their file cannot be read now."""

    instances: tuple[InstanceDocument, ...]
    trouble: str | None = None
    raw: dict[str, Any]


class RemovalDocument(Document, frozen=True, kw_only=True):
    id: str
    message: str
    unfinished_runs: int = 0
    raw: dict[str, Any]


class QueuedPromptDocument(Document, frozen=True, kw_only=True):
    """A prompt in the queue. `position`: number of prompts ahead of it."""

    prompt_id: str
    workflow_id: str | None = None
    position: int = 0


class QueueDocument(Document, frozen=True, kw_only=True):
    """Queue of an instance; `pending` is in execution order."""

    running: tuple[QueuedPromptDocument, ...]
    pending: tuple[QueuedPromptDocument, ...]
    raw: dict[str, Any]


class InterruptionDocument(Document, frozen=True, kw_only=True):
    message: str
    interrupted: tuple[QueuedPromptDocument, ...] = ()
    raw: dict[str, Any]


class SpentDocument(Document, frozen=True, kw_only=True):
    """Costs in seconds and money; an amount of money is None if no price is known."""

    runs: int = 0
    gpu_seconds: float = 0.0
    run_cost: float | None = None
    connected_s: float = 0.0
    busy_s: float = 0.0
    idle_s: float = 0.0
    idle_cost: float | None = None


class InstanceCostsDocument(SpentDocument, frozen=True, kw_only=True):
    """Costs of an instance since it was added."""

    id: str
    name: str
    price_per_hour: float | None = None


class CostsDocument(Document, frozen=True, kw_only=True):
    """Costs of all instances. `removed`: costs of the removed instances, included in `total`."""

    instances: tuple[InstanceCostsDocument, ...]
    removed: SpentDocument = SpentDocument()
    total: SpentDocument
    raw: dict[str, Any]


class PlanItemDocument(Document, frozen=True, kw_only=True):
    """One entry of a manifest. `action`: `none`, `install`, `update`, `download` or `refused`."""

    kind: str
    name: str
    action: str
    found: str | None = None
    reason: str | None = None


class PlanDocument(Document, frozen=True, kw_only=True):
    """What a manifest would change. `restarts`: ComfyUI would be restarted."""

    items: tuple[PlanItemDocument, ...]
    restarts: bool = False


class ProvisionLineDocument(Document, frozen=True, kw_only=True):
    number: int
    text: str
    at: datetime | None = None


class ProvisionDocument(Document, frozen=True, kw_only=True):
    """The application of a manifest. `status`: `running`, `completed`, `failed` or `cancelled`; `activity`:
    the progress of the current step."""

    status: str
    error: str | None = None
    activity: str | None = None
    plan: tuple[PlanItemDocument, ...] = ()
    log: tuple[ProvisionLineDocument, ...] = ()

    @property
    def is_running(self) -> bool:
        return self.status == "running"


class ProvisionStateDocument(Document, frozen=True, kw_only=True):
    """`plan`: of a dry run. `lock`: what was on the machine after the last complete application."""

    message: str = ""
    plan: PlanDocument | None = None
    provision: ProvisionDocument | None = None
    lock: dict[str, Any] | None = None
    raw: dict[str, Any]
