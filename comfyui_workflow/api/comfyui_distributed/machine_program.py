"""Runs on an instance (see `ssh/programs.py`): prints what ComfyUI-Distributed tells about its machine.
Python 3.7, standard library only."""

import contextlib
import json
import os
import platform
import socket
import uuid
from pathlib import Path
from typing import Any


def addresses() -> list[str]:
    """Returns the IPv4 addresses of this machine."""
    found: list[Any] = []
    with contextlib.suppress(OSError):
        found += [info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]
    route = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        route.connect(("192.0.2.1", 9))  # sends nothing: it only selects the interface
        found.append(route.getsockname()[0])
    except OSError:
        pass
    finally:
        route.close()
    return sorted(set(found))


def told() -> dict[str, Any]:
    node = platform.node()
    return {
        "hostname": socket.gethostname(),
        "machine_id": str(uuid.getnode()),
        "platform": {
            "system": platform.system(),
            "machine": platform.machine(),
            "node": node,
            "path_separator": os.sep,
            "os_name": os.name,
        },
        "is_docker": Path("/.dockerenv").exists() or "docker" in node.lower(),
        "is_runpod": "RUNPOD_POD_ID" in os.environ or "RUNPOD_API_KEY" in os.environ,
        "runpod_pod_id": os.environ.get("RUNPOD_POD_ID"),
        "all_ips": addresses(),
    }


print(json.dumps({"comfyui-workflow": told()}), flush=True)  # noqa: T201
