"""The configuration in the words of ComfyUI-Distributed. Its workers are the instances of this server.

How it works: a worker is shown as the plugin shows a remote one, and its fields are changed in the registry
of the instances. Fields of the plugin without a meaning here (`cuda_device`, `extra_args`) are shown and
ignored. `settings` are kept in a record of their own.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from comfyui_workflow.api.comfyui_distributed.errors import InvalidConfig
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.instances.model import Instance

Json = dict[str, Any]
Body = Mapping[str, Any]

DEFAULT_SETTINGS: Body = {
    "debug": False,
    "auto_launch_workers": False,
    "stop_workers_on_master_exit": True,
    "master_delegate_only": False,
    "websocket_orchestration": True,
    "worker_probe_concurrency": 8,
    "worker_prep_concurrency": 4,
    "media_sync_concurrency": 2,
    "media_sync_timeout_seconds": 120,
}
SETTING_TYPES: Mapping[str, type] = {
    "worker_timeout_seconds": int,
    "debug": bool,
    "auto_launch_workers": bool,
    "stop_workers_on_master_exit": bool,
    "master_delegate_only": bool,
    "websocket_orchestration": bool,
    "has_auto_populated_workers": bool,
}
"""Settings that a request may change."""
_ROOT_TYPES: Mapping[str, type] = {
    "workers": list,
    "master": dict,
    "settings": dict,
    "tunnel": dict,
    "managed_processes": dict,
}
MASTER_FIELDS = ("name", "host", "port", "cuda_device", "extra_args")
NEW_WORKER_FIELDS = ("name", "port", "cuda_device")
NO_TUNNEL: Body = {
    "status": "stopped",
    "public_url": "",
    "pid": None,
    "log_file": "",
    "previous_master_host": "",
}


def config_document(workers: Iterable[Instance], settings: Body, master: Body) -> Json:
    return {
        "master": {"host": "", **master},
        "workers": [worker_document(each) for each in workers],
        "settings": {**DEFAULT_SETTINGS, **settings},
        "tunnel": dict(NO_TUNNEL),
    }


def worker_document(instance: Instance) -> Json:
    """Returns a worker. Its address is the local port that leads to its ComfyUI, if it has one: the port of
    ComfyUI on the machine is not reachable from outside."""
    host, port = instance.address.host, instance.comfyui_port
    if instance.local_port is not None:
        host, port = "127.0.0.1", instance.local_port
    return {
        "id": instance.id,
        "name": instance.name,
        "host": host,
        "port": port,
        "cuda_device": None,
        "enabled": instance.enabled,
        "extra_args": "",
        "type": "remote",
    }


def read_config(data: Body) -> tuple[Json, Json]:
    """Returns the settings and the other parts of a whole configuration. Raises: InvalidConfig, with one
    message for each wrong field."""
    problems = [problem for name, value in data.items() if (problem := _problem(name, value))]
    if problems:
        raise InvalidConfig(problems)
    settings = {name: value for name, value in data.items() if name in SETTING_TYPES}
    return settings, {name: value for name, value in data.items() if name in _ROOT_TYPES}


def read_setting(data: Body) -> Json:
    """Returns one changed setting. Raises: InvalidRequest."""
    name, value = data.get("key"), data.get("value")
    if not name or value is None:
        raise InvalidRequest("Missing 'key' or 'value' in request")
    if not isinstance(name, str) or name not in SETTING_TYPES:
        raise InvalidRequest(f"Unknown setting: {str(name)[:100]}")
    return {name: value}


def read_master(data: Body) -> Json:
    """Returns the changed fields of the master; null removes one of those that may be missing."""
    return {
        name: _plain_host(data[name]) if name == "host" else data[name]
        for name in MASTER_FIELDS
        if name in data
    }


def is_new_worker(data: Body) -> bool:
    """True if the fields are enough for a worker that does not exist yet."""
    return all(name in data for name in NEW_WORKER_FIELDS)


def changed_fields(data: Body) -> Json:
    """Returns the fields of an instance that an update of a worker changes. `host` and `port` of a worker are
    only shown: its machine is reached by its ssh string, which `ssh_connection` changes."""
    names = ("name", "enabled", "ssh_connection")
    return {name: data[name] for name in names if data.get(name) is not None}


def new_fields(data: Body) -> Json:
    """Returns the fields of a new instance. Without `ssh_connection`, the host of the plugin is taken for the
    destination of an ssh command. A new worker is disabled, as in the plugin, unless the request says it."""
    host, port = _plain_host(data.get("host") or "localhost"), data["port"]
    return {
        "name": data["name"],
        "ssh_connection": data.get("ssh_connection") or host,
        "comfyui_port": int(port) if isinstance(port, str) and re.fullmatch("[0-9]{1,5}", port) else port,
        "enabled": data.get("enabled", False),
    }


def _problem(name: str, value: object) -> str | None:
    expected = SETTING_TYPES.get(name) or _ROOT_TYPES.get(name)
    if expected is None:
        return f"Unknown field: {name[:100]}"
    if not isinstance(value, expected):
        return f"{name}: expected {expected.__name__}"
    if name == "worker_timeout_seconds" and isinstance(value, int) and value <= 0:
        return f"{name}: value {value!r} failed validation"
    return None


def _plain_host(value: object) -> object:
    """Returns a host without scheme and path. Another value is returned as it is."""
    if not isinstance(value, str):
        return value
    return re.sub(r"(?i)^https?://", "", value.strip()).partition("/")[0]
