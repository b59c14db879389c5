"""The instances that take part in a run: in the order of the registry, those that the request names and that
answer."""

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

from comfyui_workflow.api.comfyui_distributed.machines import Machines
from comfyui_workflow.concurrency import parallel_map
from comfyui_workflow.distributed.resolution import HELPFUL_CLASSES
from comfyui_workflow.errors import ComfyUIError, InstanceError, ServerBusy
from comfyui_workflow.instances.model import Instance
from comfyui_workflow.instances.state import InstanceState, Prompts
from comfyui_workflow.sessions.session import ComfyUISession


@dataclass(frozen=True, kw_only=True)
class Participants:
    master: Instance
    workers: tuple[Instance, ...]
    classes: Mapping[str, Set[str]]
    """Node classes of each instance that answered, by its id."""

    @property
    def installed(self) -> frozenset[str]:
        """Classes that help to plan a workflow, and that all participants have."""
        known = [self.classes.get(each.id, frozenset()) for each in (self.master, *self.workers)]
        return HELPFUL_CLASSES.intersection(*known)


def participants_of(machines: Machines, worker_ids: Collection[str]) -> Participants:
    """Asks the master and the named workers. A master that does not answer takes part all the same: its part
    waits for it."""
    master = machines.master()
    named = [each for each in machines.workers() if each.id in worker_ids]
    asked = [master, *named]
    answers = parallel_map(partial(_classes, machines), asked)
    classes = {each.id: found for each, found in zip(asked, answers, strict=True) if found is not None}
    workers = tuple(each for each in named if each.id in classes)
    return Participants(master=master, workers=workers, classes=classes)


def least_busy(candidates: Sequence[Instance], states: Mapping[str, InstanceState]) -> Instance:
    """Returns an idle instance, else the one with the shortest queue; of equal ones the first."""
    return min(candidates, key=lambda each: _queue_length(states[each.id].prompts))


def _queue_length(prompts: Prompts | None) -> int:
    """An instance whose queue is not known yet counts as idle: no run of this server is there."""
    return 0 if prompts is None else len(prompts.running) + len(prompts.pending)


def _classes(machines: Machines, instance: Instance) -> Set[str] | None:
    """Returns the node classes of an instance; None if it does not answer."""
    try:
        return machines.ask(instance, _classes_of)
    except (InstanceError, ComfyUIError, ServerBusy):
        return None


def _classes_of(session: ComfyUISession) -> Set[str]:
    definitions: Mapping[str, Any] = session.definitions().object_info
    return definitions.keys()
