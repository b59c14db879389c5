"""The documents of an instance and its state, as the API answers them."""

from datetime import UTC, datetime
from typing import Any

from comfyui_workflow.comfyui.system import Device
from comfyui_workflow.fleet.instance import Instance
from comfyui_workflow.fleet.state import InstanceState, Prompts


def instance_document(instance: Instance) -> dict[str, Any]:
    return {
        "id": instance.id,
        "name": instance.name,
        "ssh_connection": instance.ssh_connection,
        "comfyui_port": instance.comfyui_port,
        "comfyui_input_dir": instance.comfyui_input_dir,
        "comfyui_output_dir": instance.comfyui_output_dir,
        "enabled": instance.enabled,
        "tags": list(instance.tags),
        "price_per_hour": instance.price_per_hour,
        "host_key": instance.host_key,
        "local_port": instance.local_port,
    }


def state_document(state: InstanceState, at: datetime) -> dict[str, Any]:
    return {
        "reachability": state.reachability.value,
        "trouble": state.trouble,
        "looked_at": _time(state.looked_at),
        "comfyui_version": state.comfyui_version,
        "devices": [_device(device) for device in state.devices],
        "prompts": None if state.prompts is None else _prompts(state.prompts),
        "round_trip_s": state.round_trip_s,
        "host_key_fingerprint": state.host_key_fingerprint,
        "connected_since": _time(state.connected_since),
        "idle_since": _time(state.idle_since),
        "idle_s": round(state.idle_s(at), 1),
    }


def _device(device: Device) -> dict[str, Any]:
    return {
        "name": device.name,
        "type": device.type,
        "index": device.index,
        "vram_total": device.vram_total,
        "vram_free": device.vram_free,
    }


def _prompts(prompts: Prompts) -> dict[str, Any]:
    return {
        "running": list(prompts.running),
        "pending": list(prompts.pending),
        "ours": list(prompts.ours),
        "others": prompts.others,
    }


def _time(at: datetime | None) -> str | None:
    if at is None:
        return None
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
