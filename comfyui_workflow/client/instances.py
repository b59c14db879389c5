"""Python client of the instance routes of the server: `server.instances`."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, Unpack
from urllib.parse import quote

from msgspec.structs import replace

from comfyui_workflow.client.calls import Calls
from comfyui_workflow.client.instance_documents import (
    CostsDocument,
    InstanceDocument,
    InstanceListDocument,
    InterruptionDocument,
    ProvisionStateDocument,
    QueueDocument,
    RemovalDocument,
)
from comfyui_workflow.errors import InvalidRequest

_BASE = "/comfyui/instances"
PLAN_TIMEOUT_S = 120.0
"""A plan asks the machine, and reads the files there whose SHA-256 the manifest names."""


class InstanceFields(TypedDict, total=False):
    """Fields of an instance (docs/api/instances.md); None restores the default."""

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
    comfyui_token: str | None
    comfyui_user: str | None
    comfyui_password: str | None


class NamedInstances:
    """Client of the instance routes. `instance` is an id, or a name in any case. The methods raise the errors
    of `WorkflowServer`. `system_stats` and the methods below it send a request to the instance itself, with a
    timeout of about ten seconds."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def all(self) -> InstanceListDocument:
        """Returns all instances with their last known state. Waits for no instance."""
        answer = self._calls.ask("GET", _BASE)
        entries = self._calls.read_all(InstanceDocument, answer.get("instances"))
        listed = self._calls.read(InstanceListDocument, answer)
        return replace(listed, instances=tuple(entries))

    def get(self, instance: str) -> InstanceDocument:
        return self._read(self._calls.ask("GET", _path(instance)))

    def costs(self) -> CostsDocument:
        """Returns the costs of each instance, for runs and for idle time, and the total."""
        return self._calls.read(CostsDocument, self._calls.ask("GET", f"{_BASE}/costs"))

    def add(self, **fields: Unpack[InstanceFields]) -> InstanceDocument:
        return self._read(self._calls.ask("POST", _BASE, json=fields))

    def change(self, instance: str, **fields: Unpack[InstanceFields]) -> InstanceDocument:
        """Changes the given fields; other fields stay as they are."""
        return self._read(self._calls.ask("PATCH", _path(instance), json=fields))

    def remove(self, instance: str) -> RemovalDocument:
        """Removes the instance from the list; nothing happens on the machine."""
        return self._calls.read(RemovalDocument, self._calls.ask("DELETE", _path(instance)))

    def connect(self, instance: str) -> str:
        """Starts to connect and returns the message of the server at once; `get` has the state of the
        connection."""
        return self._message(instance, "connect")

    def disconnect(self, instance: str) -> str:
        return self._message(instance, "disconnect")

    def forget_host_key(self, instance: str) -> str | None:
        """Forgets the known host key and returns its fingerprint, or None if none was known."""
        return self._calls.ask("POST", f"{_path(instance)}/forget-host-key").get("forgotten")

    def accept_host_key(self, instance: str, fingerprint: str) -> str:
        """Trusts the host key in `get(…).state.host_key.offered`. Returns the message of the server."""
        return self._message(instance, "accept-host-key", fingerprint=fingerprint)

    def provision(
        self,
        instance: str,
        manifest: Mapping[str, Any] | str,
        *,
        dry_run: bool = False,
        credentials: Sequence[Mapping[str, Any]] | None = None,
    ) -> ProvisionStateDocument:
        """Starts to put on the machine what a manifest names (an object, or its text in YAML or JSON), and
        returns at once; `provision_state` tells what becomes of it. With `dry_run` it returns the plan, and
        changes nothing."""
        body: dict[str, Any] = {"manifest": manifest, "dry_run": dry_run}
        if credentials is not None:
            body["credentials"] = list(credentials)
        path = f"{_path(instance)}/provision"
        answer = self._calls.ask("POST", path, json=body, timeout_s=PLAN_TIMEOUT_S)
        return self._calls.read(ProvisionStateDocument, answer)

    def provision_state(self, instance: str, *, after: int = 0) -> ProvisionStateDocument:
        """Returns the last application, with the lines of its log behind number `after`."""
        path = f"{_path(instance)}/provision"
        return self._calls.read(
            ProvisionStateDocument, self._calls.ask("GET", path, params={"after": str(after)})
        )

    def cancel_provision(self, instance: str) -> str:
        """Stops the application of a manifest; what was done stays. Returns the message of the server."""
        return str(self._calls.ask("DELETE", f"{_path(instance)}/provision").get("message"))

    def system_stats(self, instance: str) -> dict[str, Any]:
        """Returns the `/system_stats` of the ComfyUI of the instance, unchanged."""
        return dict(self._calls.ask("GET", f"{_path(instance)}/system_stats").get("system_stats") or {})

    def queue(self, instance: str) -> QueueDocument:
        return self._calls.read(QueueDocument, self._calls.ask("GET", f"{_path(instance)}/queue"))

    def logs(self, instance: str, *, lines: int = 100) -> list[str]:
        """Returns the last lines of ComfyUI's log."""
        answer = self._calls.ask("GET", f"{_path(instance)}/logs", params={"lines": str(lines)})
        return [str(line) for line in answer.get("lines") or []]

    def free(self, instance: str, *, unload_models: bool = True, free_memory: bool = True) -> str:
        """Asks ComfyUI to free memory; it does so as soon as no prompt is running. Returns the message of the
        server."""
        return self._message(instance, "free", unload_models=unload_models, free_memory=free_memory)

    def interrupt(
        self, instance: str, *, prompt_id: str | None = None, workflow_id: str | None = None
    ) -> InterruptionDocument:
        """Interrupts the prompt with that id, or of that run, if it is running there. Without an id: every
        running prompt."""
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
        extra = {name: answer[name] for name in ("notices", "unfinished_runs") if name in answer}
        return self._calls.read(InstanceDocument, {**entry, **extra})


def _path(instance: str) -> str:
    """Returns the path of the instance. A name of dots alone is refused: it would lead to another route."""
    if not instance.strip(". "):
        raise InvalidRequest(f"This is not the name of an instance: {instance!r}")
    return f"{_BASE}/{quote(instance.strip(), safe='')}"
