"""Collection of the monitors, one for each instance that was acquired or connected."""

import threading
import time
from collections.abc import Mapping
from math import inf

from comfyui_workflow.instances.model import Instance, key_of_instance
from comfyui_workflow.instances.monitor import InstanceMonitor, MonitorContext
from comfyui_workflow.instances.state import InstanceState
from comfyui_workflow.runs.usage import RemovedUsage, Usage
from comfyui_workflow.stores.journal import now


class InstanceMonitors:
    """Thread-safe; no method waits for an instance."""

    def __init__(self, context: MonitorContext) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._monitors: dict[str, InstanceMonitor] = {}
        self._is_closed = False

    def load(self, instances: Mapping[str, Instance]) -> None:
        """Loads the usage of earlier starts and the current instances."""
        self._context.ledger.load()
        self.reconcile(instances)

    def usage(self, instance_id: str) -> Usage:
        return self._context.ledger.get(instance_id)

    def removed_usage(self) -> RemovedUsage:
        return self._context.ledger.removed

    def state(self, instance_id: str) -> InstanceState:
        monitor = self._monitors.get(instance_id)
        return monitor.state if monitor else InstanceState()

    def acquire(self, instance: Instance) -> None:
        """Keeps the instance connected for the usual time (`MonitorOptions.wanted_for_s`)."""
        self._acquire(instance, self._context.options.wanted_for_s)

    def connect(self, instance: Instance) -> None:
        """Keeps the instance connected until `disconnect`."""
        self._acquire(instance, inf)
        self.poll_now(instance.id)

    def poll_now(self, instance_id: str) -> None:
        """Polls the instance now: something has changed that may have prevented the connection."""
        monitor = self._monitors.get(instance_id)
        if monitor is not None:
            monitor.wake()

    def mark_memory_freed(self, instance_id: str) -> None:
        """Records that the ComfyUI of the instance was told to unload its models."""
        monitor = self._monitors.get(instance_id)
        if monitor is not None:
            monitor.mark_memory_freed()

    def disconnect(self, instance_id: str) -> None:
        monitor = self._monitors.get(instance_id)
        if monitor is not None:
            monitor.release()

    def report(self, instance_id: str, error: Exception) -> None:
        monitor = self._monitors.get(instance_id)
        if monitor is not None:
            monitor.report(error)

    def reconcile(self, instances: Mapping[str, Instance]) -> None:
        """Applies a change of the registry. An instance with a new address gets a new monitor, which is
        wanted for the remaining time of the old one. An instance with only a new name or price keeps its
        monitor and its state."""
        self._reconcile_ledger(instances)
        with self._lock:
            moved = [each for each in self._monitors.values() if not _has_current_address(each, instances)]
            for monitor in moved:
                del self._monitors[monitor.instance.id]
            released = [each for each in self._monitors.values() if _stops_keeping_connected(each, instances)]
            for monitor in self._monitors.values():
                monitor.instance = instances[monitor.instance.id]
        for monitor in released:
            monitor.release()
        for monitor in moved:
            wanted_for_s = 0.0 if _stops_keeping_connected(monitor, instances) else monitor.wanted_for_s
            monitor.close()
            instance = instances.get(monitor.instance.id)
            if instance is not None and wanted_for_s > 0:
                self._acquire(instance, wanted_for_s)
        for instance in instances.values():
            if instance.keep_connected:
                self._acquire(instance, inf)

    def close(self, timeout_s: float) -> None:
        with self._lock:
            self._is_closed = True
            monitors = list(self._monitors.values())
        for monitor in monitors:
            monitor.close()
        deadline_s = time.monotonic() + timeout_s
        for monitor in monitors:
            monitor.join(max(0.0, deadline_s - time.monotonic()))
        self._context.ledger.save()

    def _reconcile_ledger(self, instances: Mapping[str, Instance]) -> None:
        self._context.ledger.reconcile({each.id: each.price_per_hour for each in instances.values()}, now())

    def _acquire(self, instance: Instance, for_s: float) -> None:
        with self._lock:
            if self._is_closed:
                return
            monitor = self._monitors.get(instance.id)
            if monitor is None or not _has_current_address(monitor, {instance.id: instance}):
                monitor = self._monitors[instance.id] = InstanceMonitor(instance, self._context)
        monitor.acquire(for_s)


def _has_current_address(monitor: InstanceMonitor, instances: Mapping[str, Instance]) -> bool:
    """True if the monitor polls the current address of its instance."""
    instance = instances.get(monitor.instance.id)
    return instance is not None and key_of_instance(instance) == key_of_instance(monitor.instance)


def _stops_keeping_connected(monitor: InstanceMonitor, instances: Mapping[str, Instance]) -> bool:
    """True if the instance had `keep_connected` and has it no longer."""
    instance = instances.get(monitor.instance.id)
    return monitor.instance.keep_connected and (instance is None or not instance.keep_connected)
