"""Data of a named instance."""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from comfyui_workflow.parsing.ssh_address import SshAddress, parse_ssh_address
from comfyui_workflow.runs.model import Placement, RunRequest
from comfyui_workflow.runs.target import Address
from comfyui_workflow.sessions.session import InstanceKey


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One entry of the instance registry. `id` never changes; every other field may."""

    id: str
    name: str
    ssh_connection: str
    comfyui_port: int
    comfyui_input_dir: str
    comfyui_output_dir: str
    enabled: bool = True
    """True if runs for `any` may use the instance. A run that names the instance may always use it."""
    tags: tuple[str, ...] = ()
    price_per_hour: float | None = None
    host_key: str | None = None
    """Fingerprint (`SHA256:...`) that the machine must show; None means trust on first use."""
    local_port: int | None = None
    """Loopback port of this machine that is forwarded to the ComfyUI of the instance."""
    keep_connected: bool = False
    """True from `connect` until `disconnect`: the connection stays open even while no run needs it."""

    @cached_property
    def address(self) -> SshAddress:
        """Raises: InvalidAddress."""
        return parse_ssh_address(self.ssh_connection)

    def is_eligible_for(self, tag: str) -> bool:
        """True if `any:<tag>` may choose the instance; the tag of a plain `any` is empty."""
        return self.enabled and (not tag or self.has_tag(tag))

    def has_tag(self, tag: str) -> bool:
        """True if the instance has the tag; upper and lower case are equal, as in names."""
        return tag.lower() in (each.lower() for each in self.tags)


@lru_cache(maxsize=1024)
def key_of_instance(instance: Instance) -> InstanceKey:
    """Returns the key of the instance in the session pool. Raises: InvalidAddress."""
    return InstanceKey(
        address=instance.address,
        comfyui_port=instance.comfyui_port,
        host_key=instance.host_key,
    )


def placement_of(request: RunRequest, instance: Instance, reason: str) -> Placement:
    """Returns the placement of a run on an instance. If the request gave an ssh string, the connection fields
    of the request are kept; the price and the host key are those of the instance."""
    placement = Placement(
        instance_id=instance.id,
        name=instance.name,
        ssh_connection=instance.ssh_connection,
        comfyui_port=instance.comfyui_port,
        comfyui_input_dir=instance.comfyui_input_dir,
        comfyui_output_dir=instance.comfyui_output_dir,
        host_key=instance.host_key,
        price_per_hour=instance.price_per_hour,
        reason=reason,
    )
    if not isinstance(request.target, Address):
        return placement
    return replace(
        placement,
        ssh_connection=request.ssh_connection,
        comfyui_port=request.comfyui_port,
        comfyui_input_dir=request.comfyui_input_dir,
        comfyui_output_dir=request.comfyui_output_dir,
    )
