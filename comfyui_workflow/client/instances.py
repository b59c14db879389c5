"""The named instances of our own server, from Python: `server.instances`."""

from typing import Any, TypedDict, Unpack
from urllib.parse import quote

from msgspec.structs import replace

from comfyui_workflow.client.calls import Calls
from comfyui_workflow.client.instance_documents import (
    CostsDocument,
    InstanceDocument,
    InstanceListDocument,
    InterruptionDocument,
    QueueDocument,
    RemovalDocument,
)
from comfyui_workflow.errors import InvalidRequest

_BASE = "/comfyui/instances"


class InstanceFields(TypedDict, total=False):
    """As docs/api/instances.md has them; None is as usual again."""

    name: str
    ssh_connection: str
    comfyui_port: int | None
    comfyui_input_dir: str | None
    comfyui_output_dir: str | None
    enabled: bool | None
    tags: list[str] | None
    price_per_hour: float | None
    host_key: str | None
    local_port: int | None
    keep_connected: bool | None


class NamedInstances:
    """`instance` is an id, or a name in any case. Every method raises what those of the server raise; those
    from `system_stats` on ask the machine itself, and wait for it for about ten seconds at most."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def all(self) -> InstanceListDocument:
        """All of them, with what is known of each. Waits for none."""
        answer = self._calls.ask("GET", _BASE)
        entries = self._calls.read_all(InstanceDocument, answer.get("instances"))
        listed = self._calls.read(InstanceListDocument, answer)
        return replace(listed, instances=tuple(entries))

    def get(self, instance: str) -> InstanceDocument:
        return self._read(self._calls.ask("GET", _path(instance)))

    def costs(self) -> CostsDocument:
        """What each has cost, for runs and for standing idle, and all of them together."""
        return self._calls.read(CostsDocument, self._calls.ask("GET", f"{_BASE}/costs"))

    def add(self, **fields: Unpack[InstanceFields]) -> InstanceDocument:
        return self._read(self._calls.ask("POST", _BASE, json=fields))

    def change(self, instance: str, **fields: Unpack[InstanceFields]) -> InstanceDocument:
        """What is not named stays as it is."""
        return self._read(self._calls.ask("PATCH", _path(instance), json=fields))

    def remove(self, instance: str) -> RemovalDocument:
        """From the list; nothing happens on the machine."""
        return self._calls.read(RemovalDocument, self._calls.ask("DELETE", _path(instance)))

    def connect(self, instance: str) -> str:
        """Returns at once; `get` tells how it goes. The server's sentence."""
        return self._message(instance, "connect")

    def disconnect(self, instance: str) -> str:
        return self._message(instance, "disconnect")

    def forget_host_key(self, instance: str) -> str | None:
        """The fingerprint that was known."""
        return self._calls.ask("POST", f"{_path(instance)}/forget-host-key").get("forgotten")

    def accept_host_key(self, instance: str, fingerprint: str) -> str:
        """The one that `get(…).state.host_key` has as offered. The server's sentence."""
        return self._message(instance, "accept-host-key", fingerprint=fingerprint)

    def system_stats(self, instance: str) -> dict[str, Any]:
        """As its ComfyUI answers it."""
        return dict(self._calls.ask("GET", f"{_path(instance)}/system_stats").get("system_stats") or {})

    def queue(self, instance: str) -> QueueDocument:
        return self._calls.read(QueueDocument, self._calls.ask("GET", f"{_path(instance)}/queue"))

    def logs(self, instance: str, *, lines: int = 100) -> list[str]:
        """The last lines of ComfyUI's log."""
        answer = self._calls.ask("GET", f"{_path(instance)}/logs", params={"lines": str(lines)})
        return [str(line) for line in answer.get("lines") or []]

    def free(self, instance: str, *, unload_models: bool = True, free_memory: bool = True) -> str:
        """As soon as no prompt runs there. The server's sentence."""
        return self._message(instance, "free", unload_models=unload_models, free_memory=free_memory)

    def interrupt(
        self, instance: str, *, prompt_id: str | None = None, workflow_id: str | None = None
    ) -> InterruptionDocument:
        """The prompt of that id, or of that run, if it runs there; otherwise whatever runs."""
        wanted = {"prompt_id": prompt_id, "workflow_id": workflow_id}
        body = {field: value for field, value in wanted.items() if value is not None}
        answer = self._calls.ask("POST", f"{_path(instance)}/interrupt", json=body)
        return self._calls.read(InterruptionDocument, answer)

    def _message(self, instance: str, action: str, **body: bool | str) -> str:
        return str(self._calls.ask("POST", f"{_path(instance)}/{action}", json=body).get("message"))

    def _read(self, answer: dict[str, Any]) -> InstanceDocument:
        entry = answer.get("instance")
        if not isinstance(entry, dict):
            raise self._calls.foreign()
        told = {name: answer[name] for name in ("notices", "unfinished_runs") if name in answer}
        return self._calls.read(InstanceDocument, {**entry, **told})


def _path(instance: str) -> str:
    """Dots alone would lead to another route."""
    if not instance.strip(". "):
        raise InvalidRequest(f"This is not the name of an instance: {instance!r}")
    return f"{_BASE}/{quote(instance.strip(), safe='')}"
