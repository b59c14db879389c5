"""A named instance, as data."""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from comfyui_workflow.parsing.ssh_address import SshAddress, parse_ssh_address
from comfyui_workflow.runs.model import Placement, RunRequest
from comfyui_workflow.runs.target import Address
from comfyui_workflow.sessions.session import InstanceKey


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One entry of the directory. `id` never changes; everything else may."""

    id: str
    name: str
    ssh_connection: str
    comfyui_port: int
    comfyui_input_dir: str
    comfyui_output_dir: str
    enabled: bool = True
    """Whether runs for `any` may go there. One that is named goes there all the same."""
    tags: tuple[str, ...] = ()
    price_per_hour: float | None = None
    host_key: str | None = None
    """Fingerprint (`SHA256:...`) that the machine must show; None trusts on first use."""
    local_port: int | None = None
    """Where on this machine's loopback its ComfyUI can be reached, as if it ran here."""
    keep_connected: bool = False
    """A connection is kept whether or not a run needs it: since `connect`, until `disconnect`."""

    @cached_property
    def address(self) -> SshAddress:
        """Raises: InvalidAddress."""
        return parse_ssh_address(self.ssh_connection)

    def is_meant_by(self, tag: str) -> bool:
        """Whether it is one of those that `any:<tag>` may choose; `any` has the empty tag."""
        return self.enabled and (not tag or self.has_tag(tag))

    def has_tag(self, tag: str) -> bool:
        """As with names, capitals make no difference."""
        return tag.lower() in (each.lower() for each in self.tags)


@lru_cache(maxsize=1024)
def key_of_instance(instance: Instance) -> InstanceKey:
    """Raises: InvalidAddress."""
    return InstanceKey(
        address=instance.address,
        comfyui_port=instance.comfyui_port,
        host_key=instance.host_key,
    )


def placement_of(request: RunRequest, instance: Instance, reason: str) -> Placement:
    """A request that gave an ssh string keeps to what it gave, and shares the price and the host key."""
    whole = Placement(
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
        return whole
    return replace(
        whole,
        ssh_connection=request.ssh_connection,
        comfyui_port=request.comfyui_port,
        comfyui_input_dir=request.comfyui_input_dir,
        comfyui_output_dir=request.comfyui_output_dir,
    )
