"""Services around the named instances, in one object for the API."""

from dataclasses import dataclass

from comfyui_workflow.instances.monitors import InstanceMonitors
from comfyui_workflow.instances.registry import InstanceRegistry
from comfyui_workflow.instances.requests import InstanceRequests
from comfyui_workflow.proxy.ports import LocalPorts
from comfyui_workflow.ssh.known_hosts import KnownHosts


@dataclass(frozen=True, kw_only=True)
class InstanceServices:
    directory: InstanceRegistry
    monitors: InstanceMonitors
    instance_requests: InstanceRequests
    known_hosts: KnownHosts
    local_ports: LocalPorts

    def port_numbers(self) -> frozenset[int]:
        """Returns the local ports that are, will be or once were forwarded to an instance."""
        configured = {each.local_port for each in self.directory.all() if each.local_port is not None}
        return self.local_ports.numbers() | configured
