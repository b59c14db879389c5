"""A local port over a real sshd."""

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import requests

from tests.integration.graphs import painted
from tests.integration.test_fleet import until
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess
from tests.sshd import Sshd


def test_requests_wait_while_comfyui_is_started(
    make_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    comfyui = SandboxProcess(tmp_path / "sandbox")
    with Sshd(tmp_path / "sshd") as sshd, ThreadPoolExecutor(2) as threads:
        server = make_server(local_instances=True, ssh_key_dirs=sshd.directory)
        url = f"http://127.0.0.1:{named(server, sshd, comfyui.comfyui_port)}"
        got = threads.submit(requests.get, f"{url}/system_stats", timeout=60)
        body = {"prompt": painted()}
        posted = threads.submit(requests.post, f"{url}/prompt", json=body, timeout=60)
        until(lambda: sshd.log().count("connect_to localhost port") > 2, story=sshd.log)
        try:
            comfyui.start()
            assert got.result().status_code == 200
            prompt_id = posted.result().json()["prompt_id"]
            until(lambda: prompt_id in requests.get(f"{url}/history/{prompt_id}", timeout=10).json())
            assert len(comfyui.executions()) == 1
        finally:
            comfyui.close()


def named(server: ServerProcess, sshd: Sshd, comfyui_port: int) -> int:
    """Adds an instance, and returns its local port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    instances_url = server.url.removesuffix("/workflow") + "/instances"
    instance = {
        "name": "gpu1",
        "ssh_connection": sshd.ssh_string(comfyui_port=comfyui_port),
        "local_port": port,
    }
    requests.post(instances_url, json=instance, timeout=30).raise_for_status()
    until(partial(_is_listening, instances_url))
    return port


def _is_listening(instances_url: str) -> bool:
    (found,) = requests.get(instances_url, timeout=10).json()["instances"]
    return bool((found["local_port_state"] or {}).get("is_listening"))
