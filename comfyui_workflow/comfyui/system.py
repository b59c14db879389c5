"""Reads `GET /system_stats`: the version of a ComfyUI and its devices."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfyui_workflow.parsing.untrusted import as_list, as_object, shown


@dataclass(frozen=True, kw_only=True)
class Device:
    """A GPU, or another device that ComfyUI computes on. Memory in bytes; None if it is not reported."""

    name: str
    type: str
    index: int | None = None
    vram_total: int | None = None
    vram_free: int | None = None


@dataclass(frozen=True, kw_only=True)
class System:
    comfyui_version: str | None
    devices: tuple[Device, ...]


def read_system(answer: Mapping[str, Any]) -> System:
    version = as_object(answer.get("system")).get("comfyui_version")
    devices = [as_object(device) for device in as_list(answer.get("devices"))]
    return System(
        comfyui_version=shown(version) if isinstance(version, str) else None,
        devices=tuple(map(_device, devices)),
    )


def _device(entry: Mapping[str, Any]) -> Device:
    return Device(
        name=shown(entry.get("name", "")),
        type=shown(entry.get("type", "")),
        index=_whole(entry.get("index")),
        vram_total=_whole(entry.get("vram_total")),
        vram_free=_whole(entry.get("vram_free")),
    )


def _whole(value: object) -> int | None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return value if is_whole and abs(value) < 2**62 else None  # type: ignore[return-value, arg-type]
