"""The instances that take part in a run: in the order of the registry, those that the request names and that
answer."""

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass
from functools import partial

from comfyui_workflow.api.comfyui_distributed.machines import Machines
from comfyui_workflow.concurrency import parallel_map
from comfyui_workflow.distributed.resolution import HELPFUL_CLASSES
from comfyui_workflow.errors import ComfyUIError, InstanceError, ServerBusy
from comfyui_workflow.instances.model import Instance
from comfyui_workflow.sessions.session import ComfyUISession


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an instance told about itself."""

    classes: Set[str]
    """Its node classes."""
    queue_length: int
    """Number of prompts that execute or wait there."""


@dataclass(frozen=True, kw_only=True)
class Participants:
    master: Instance
    workers: tuple[Instance, ...]
    answers: Mapping[str, Answer]
    """By the id of the instance. A master that did not answer is not in it."""

    @property
    def installed(self) -> frozenset[str]:
        """Classes that help to plan a workflow, and that all participants have."""
        asked = (self.master, *self.workers)
        known = [self.answers[each.id].classes if each.id in self.answers else set() for each in asked]
        return HELPFUL_CLASSES.intersection(*known)

    @property
    def least_busy(self) -> Instance:
        """An idle instance, else the one with the shortest queue; of equal ones the first. A master that did
        not answer is taken only if it is alone."""
        answering = [each for each in (self.master, *self.workers) if each.id in self.answers]
        return min(answering, key=lambda each: self.answers[each.id].queue_length, default=self.master)


def participants_of(machines: Machines, worker_ids: Collection[str]) -> Participants:
    """Asks the master and the named workers. A master that does not answer takes part all the same: its part
    waits for it."""
    master = machines.master()
    named = [each for each in machines.workers() if each.id in worker_ids]
    asked = [master, *named]
    told = parallel_map(partial(_answer, machines), asked)
    answers = {each.id: answer for each, answer in zip(asked, told, strict=True) if answer is not None}
    workers = tuple(each for each in named if each.id in answers)
    return Participants(master=master, workers=workers, answers=answers)


def _answer(machines: Machines, instance: Instance) -> Answer | None:
    try:
        return machines.ask(instance, _answer_of)
    except (InstanceError, ComfyUIError, ServerBusy):
        return None


def _answer_of(session: ComfyUISession) -> Answer:
    queue_length = session.client.probe()
    return Answer(classes=session.definitions().object_info.keys(), queue_length=queue_length)
