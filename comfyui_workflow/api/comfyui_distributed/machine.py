"""Answers about the machine of an instance, and files of its ComfyUI."""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from comfyui_workflow.api.comfyui_distributed.errors import Undecodable
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import InvalidRequest, ProgramFailed
from comfyui_workflow.instances.model import Instance
from comfyui_workflow.instances.state import InstanceState
from comfyui_workflow.parsing.untrusted import as_list, as_object, as_text, is_safe_name
from comfyui_workflow.sessions.session import ComfyUISession

Json = dict[str, Any]
_PROGRAM = Path(__file__).with_name("machine_program.py")
_FOLDERS = ("input", "output", "temp")


class FilePlace(NamedTuple):
    name: str
    subfolder: str
    folder: str


def read_system(session: ComfyUISession) -> Mapping[str, Any]:
    """Returns what the machine tells about itself. Raises: ProgramFailed, ConnectionFailed."""
    program = _PROGRAM.read_bytes()
    told = next(iter(session.connection.run_program(program, {}, stop=CancelToken())), None)
    if told is None:
        raise ProgramFailed("The machine has told nothing about itself")
    return {**told, "devices": len(session.client.system().devices)}


def system_info(told: Mapping[str, Any]) -> Json:
    about = as_object(told.get("platform"))
    names = ("system", "machine", "node", "path_separator", "os_name")
    return {
        "status": "success",
        "hostname": as_text(told.get("hostname")) or "",
        "machine_id": as_text(told.get("machine_id")) or "",
        "platform": {name: as_text(about.get(name)) or "" for name in names},
        "is_docker": told.get("is_docker") is True,
        "is_runpod": told.get("is_runpod") is True,
        "runpod_pod_id": as_text(told.get("runpod_pod_id")),
    }


def network_info(told: Mapping[str, Any]) -> Json:
    ips = [ip for ip in map(as_text, as_list(told.get("all_ips"))) if ip and _is_ip(ip)]
    devices = told["devices"]
    return {
        "status": "success",
        "hostname": as_text(told.get("hostname")) or "",
        "all_ips": ips,
        "recommended_ip": recommended_ip(ips),
        "cuda_device": 0 if devices else None,
        "cuda_device_count": devices,
        "message": "Auto-detected network configuration",
    }


def recommended_ip(ips: list[str]) -> str | None:
    """Returns a private address, preferably one of 192.168, else a public one, else any."""

    def rank(ip: str) -> tuple[bool, bool, bool]:
        address = ipaddress.ip_address(ip)
        return (address.is_loopback, not address.is_private, not ip.startswith("192.168."))

    return min(ips, key=rank, default=None)


def worker_status(worker: Instance, state: InstanceState) -> Json:
    if not worker.enabled:
        return {"online": False, "enabled": False, "processing": False, "queue_count": 0}
    if not state.is_ready:
        return {
            "online": False,
            "enabled": True,
            "processing": False,
            "queue_count": 0,
            "error": state.trouble or "Unavailable",
        }
    prompts = state.prompts
    count = len(prompts.running) + len(prompts.pending) if prompts else 0
    return {"online": True, "enabled": True, "processing": count > 0, "queue_count": count}


def file_place(given: str) -> FilePlace:
    """Parses `directory/name [output]`. Raises: Undecodable for a path out of ComfyUI's directories."""
    path, mark, folder = given.rpartition(" [")
    folder = folder.removesuffix("]") if mark else "input"
    if not mark or folder not in _FOLDERS:
        path, folder = given, "input"
    parts = path.replace("\\", "/").split("/")
    if not all(map(is_safe_name, parts)):
        raise Undecodable(f"Invalid file path: {given!r}")
    return FilePlace(name=parts[-1], subfolder="/".join(parts[:-1]), folder=folder)


def read_file(place: FilePlace, most_bytes: int, session: ComfyUISession) -> bytes:
    """Raises: InvalidRequest for a larger file; RemoteFileError, RemoteFileMissing."""
    content = bytearray()
    with session.client.view(place.name, subfolder=place.subfolder, folder=place.folder) as viewed:
        for piece in viewed:
            content += piece
            if len(content) > most_bytes:
                raise InvalidRequest(f"{place.name} is larger than {most_bytes // 2**20} MB")
    return bytes(content)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
