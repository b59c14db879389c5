"""Services around the named instances, in one object for the API."""

from dataclasses import dataclass
from pathlib import Path

from comfyui_workflow.instances.model import Instance
from comfyui_workflow.instances.monitors import InstanceMonitors
from comfyui_workflow.instances.registry import InstanceRegistry
from comfyui_workflow.instances.requests import InstanceRequests
from comfyui_workflow.parsing.ssh_address import SshAddress
from comfyui_workflow.proxy.ports import LocalPorts
from comfyui_workflow.ssh.client_config import resolve
from comfyui_workflow.ssh.known_hosts import KnownHosts


@dataclass(frozen=True, kw_only=True)
class InstanceServices:
    directory: InstanceRegistry
    monitors: InstanceMonitors
    instance_requests: InstanceRequests
    known_hosts: KnownHosts
    ssh_config: Path | None = None
    local_ports: LocalPorts

    def resolved_address(self, instance: Instance) -> SshAddress:
        """Returns the address with what the SSH configuration adds. Raises: InvalidAddress."""
        return resolve(instance.address, self.ssh_config)

    def port_numbers(self) -> frozenset[int]:
        """Returns the local ports that are, will be or once were forwarded to an instance."""
        configured = {each.local_port for each in self.directory.all() if each.local_port is not None}
        return self.local_ports.numbers() | configured
