"""The watches of all instances: one for each that somebody wants."""

import threading
import time
from collections.abc import Mapping
from math import inf

from comfyui_workflow.instances.model import Instance, key_of_instance
from comfyui_workflow.instances.monitor import Surroundings, Watch
from comfyui_workflow.instances.state import InstanceState
from comfyui_workflow.runs.usage import RemovedUsage, Usage
from comfyui_workflow.stores.journal import now


class Watches:
    """Every method may be called from any thread, and none waits for an instance."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._lock = threading.Lock()
        self._watches: dict[str, Watch] = {}
        self._is_closed = False

    def load(self, instances: Mapping[str, Instance]) -> None:
        """What was used before this start, and which instances there are now."""
        self._around.ledger.load()
        self.keep_to(instances)

    def usage(self, instance_id: str) -> Usage:
        return self._around.ledger.get(instance_id)

    def removed_usage(self) -> RemovedUsage:
        return self._around.ledger.removed

    def state(self, instance_id: str) -> InstanceState:
        watch = self._watches.get(instance_id)
        return watch.state if watch else InstanceState()

    def want(self, instance: Instance) -> None:
        self._want(instance, self._around.options.wanted_for_s)

    def connect(self, instance: Instance) -> None:
        self._want(instance, inf)
        self.look_now(instance.id)

    def look_now(self, instance_id: str) -> None:
        """Something has changed that may have kept us out."""
        watch = self._watches.get(instance_id)
        if watch is not None:
            watch.wake()

    def memory_emptied(self, instance_id: str) -> None:
        """Its ComfyUI was told to unload what it has loaded."""
        watch = self._watches.get(instance_id)
        if watch is not None:
            watch.memory_emptied()

    def disconnect(self, instance_id: str) -> None:
        watch = self._watches.get(instance_id)
        if watch is not None:
            watch.unwant()

    def report(self, instance_id: str, error: Exception) -> None:
        watch = self._watches.get(instance_id)
        if watch is not None:
            watch.report(error)

    def keep_to(self, instances: Mapping[str, Instance]) -> None:
        """The directory has changed: what is elsewhere now is watched there, for as long as it was wanted. Of
        what is only called otherwise, or costs more, everything stays known."""
        self._keep_ledger_to(instances)
        with self._lock:
            moved = [each for each in self._watches.values() if not _leads_there(each, instances)]
            for watch in moved:
                del self._watches[watch.instance.id]
            let_go = [each for each in self._watches.values() if _is_let_go(each, instances)]
            for watch in self._watches.values():
                watch.instance = instances[watch.instance.id]
        for watch in let_go:
            watch.unwant()
        for watch in moved:
            wanted_for_s = 0.0 if _is_let_go(watch, instances) else watch.wanted_for_s
            watch.close()
            instance = instances.get(watch.instance.id)
            if instance is not None and wanted_for_s > 0:
                self._want(instance, wanted_for_s)
        for instance in instances.values():
            if instance.keep_connected:
                self._want(instance, inf)

    def close(self, timeout_s: float) -> None:
        with self._lock:
            self._is_closed = True
            watches = list(self._watches.values())
        for watch in watches:
            watch.close()
        until_s = time.monotonic() + timeout_s
        for watch in watches:
            watch.join(max(0.0, until_s - time.monotonic()))
        self._around.ledger.save()

    def _keep_ledger_to(self, instances: Mapping[str, Instance]) -> None:
        self._around.ledger.keep_to({each.id: each.price_per_hour for each in instances.values()}, now())

    def _want(self, instance: Instance, for_s: float) -> None:
        with self._lock:
            if self._is_closed:
                return
            watch = self._watches.get(instance.id)
            if watch is None or not _leads_there(watch, {instance.id: instance}):
                watch = self._watches[instance.id] = Watch(instance, self._around)
        watch.want(for_s)


def _leads_there(watch: Watch, instances: Mapping[str, Instance]) -> bool:
    """Whether it looks where the instance of its id is."""
    instance = instances.get(watch.instance.id)
    return instance is not None and key_of_instance(instance) == key_of_instance(watch.instance)


def _is_let_go(watch: Watch, instances: Mapping[str, Instance]) -> bool:
    """Whether its connection was to be kept, and is not any more."""
    instance = instances.get(watch.instance.id)
    return watch.instance.keep_connected and (instance is None or not instance.keep_connected)
