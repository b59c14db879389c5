"""The instances as master and workers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from flask import request

from comfyui_workflow.api.comfyui_distributed.errors import Missing
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.instances.model import Instance
from comfyui_workflow.instances.services import InstanceServices
from comfyui_workflow.sessions.session import ComfyUISession

INSTANCE_OF_PORT = "comfyui_workflow.instance_of_port"
"""Key of the WSGI environment: the id of the instance whose local port got the request."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Machines:
    """The instances as master and workers."""

    instances: InstanceServices
    configured_master: str | None

    def master(self) -> Instance:
        """Raises: InstanceNotFound; InvalidRequest without any instance."""
        wanted = request.environ.get(INSTANCE_OF_PORT) or self.configured_master
        if wanted:
            return self.instances.directory.require(wanted)
        known = self.instances.directory.all()
        if not known:
            raise InvalidRequest("There is no instance yet: comfyui-workflow instances add NAME SSH_STRING")
        return known[0]

    def workers(self) -> list[Instance]:
        """Returns all instances but the master."""
        known = self.instances.directory.all()
        master_id = self.master().id if known else None
        return [each for each in known if each.id != master_id]

    def worker(self, worker_id: str) -> Instance:
        """Raises: Missing."""
        found = next((each for each in self.workers() if each.id == worker_id), None)
        if found is None:
            raise Missing(f"Worker {worker_id[:100]} not found")
        return found

    def ask(self, instance: Instance, work: Callable[[ComfyUISession], T]) -> T:
        return self.instances.instance_requests.ask(instance, work)
