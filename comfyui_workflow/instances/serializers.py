"""Serializers: instances, their states, costs and ports as JSON documents of the API."""

from datetime import datetime
from typing import Any

from comfyui_workflow.comfyui.system import Device
from comfyui_workflow.errors import OfferedKey
from comfyui_workflow.instances.costs import Costs, FleetCosts
from comfyui_workflow.instances.model import Instance
from comfyui_workflow.instances.state import InstanceState, Preparation, Prompts
from comfyui_workflow.proxy.model import PortState
from comfyui_workflow.runs.document import serialize_time


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
        "keep_connected": instance.keep_connected,
    }


def state_document(state: InstanceState, at: datetime) -> dict[str, Any]:
    return {
        "reachability": state.reachability.value,
        "trouble": state.trouble,
        "looked_at": serialize_time(state.looked_at),
        "comfyui_version": state.comfyui_version,
        "comfyui_port": state.comfyui_port,
        "devices": [_device(device) for device in state.devices],
        "prompts": None if state.prompts is None else _prompts(state.prompts),
        "round_trip_s": state.round_trip_s,
        "host_key_fingerprint": state.host_key_fingerprint,
        "host_key": None if state.offered_key is None else _host_key(state.offered_key),
        "connected_since": serialize_time(state.connected_since),
        "idle_since": serialize_time(state.idle_since),
        "idle_s": round(state.idle_s(at), 1),
        "preparation": None if state.preparation is None else _preparation(state.preparation),
    }


def costs_document(costs: FleetCosts) -> dict[str, Any]:
    return {
        "instances": [
            {
                "id": instance.id,
                "name": instance.name,
                "price_per_hour": instance.price_per_hour,
                **_costs(each),
            }
            for instance, each in costs.instances
        ],
        "removed": _costs(costs.removed),
        "total": _costs(costs.total),
    }


def port_document(port: PortState) -> dict[str, Any]:
    return {
        "port": port.port,
        "is_listening": port.is_listening,
        "trouble": port.trouble,
        "open_requests": port.open_requests,
        "open_sockets": port.open_sockets,
    }


def _costs(costs: Costs) -> dict[str, Any]:
    return {
        "runs": costs.runs,
        "gpu_seconds": round(costs.gpu_s, 3),
        "run_cost": _money(costs.run_cost),
        "connected_s": round(costs.usage.connected_s, 1),
        "busy_s": round(costs.usage.busy_s, 1),
        "idle_s": round(costs.usage.idle_s, 1),
        "idle_cost": _money(costs.idle_cost),
    }


def _host_key(offered: OfferedKey) -> dict[str, Any]:
    return {"known": offered.known, "offered": offered.fingerprint}


def _preparation(preparation: Preparation) -> dict[str, Any]:
    return {"status": preparation.status.value, "message": preparation.message}


def _money(amount: float | None) -> float | None:
    return None if amount is None else round(amount, 6)


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
