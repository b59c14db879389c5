"""Approval of a changed host key by the user."""

from comfyui_workflow.errors import HostKeyConflict, OfferedKey
from comfyui_workflow.instances.model import Instance
from comfyui_workflow.instances.services import InstanceServices


def accept_host_key(
    instances: InstanceServices, instance: Instance, fingerprint: str, *, pinned_for_all: str | None
) -> None:
    """Trusts the offered host key with that fingerprint. Any other key is refused, also one that another
    machine shows later. If the entry of the instance pins a key, the pinned key is replaced.
    Raises: HostKeyConflict, StoreError."""
    offered = _offered(instances, instance, fingerprint)
    if instance.host_key is not None:
        instances.directory.change(instance.id, {"host_key": offered.fingerprint})
    elif pinned_for_all is not None:
        raise HostKeyConflict(
            f"The server is set to accept {pinned_for_all} alone (COMFYUI_WORKFLOW_SSH_HOST_KEY). "
            f"Give the entry of {instance.name} a host_key of its own, or change the setting"
        )
    else:
        instances.known_hosts.trust(offered)
    instances.monitors.acquire(instances.directory.require(instance.id))
    instances.monitors.poll_now(instance.id)


def _offered(instances: InstanceServices, instance: Instance, fingerprint: str) -> OfferedKey:
    offered = instances.monitors.state(instance.id).offered_key
    if offered is None:
        raise HostKeyConflict(
            f"{instance.name} has not shown a new host key: connect to it first, and check the key that it "
            "shows"
        )
    if fingerprint.strip().rstrip("=") != offered.fingerprint.rstrip("="):
        raise HostKeyConflict(
            f"{instance.name} shows the host key {offered.fingerprint}, not the one that you want to accept"
        )
    return offered
