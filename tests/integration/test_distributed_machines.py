"""The routes of ComfyUI-Distributed that ask a machine, over a real instance: at the port of the server and
at a local port."""

import hashlib
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.integration.test_local_port import named
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess
from tests.sshd import Sshd


@pytest.fixture
def sandbox(tmp_path: Path) -> SandboxProcess:
    return SandboxProcess(tmp_path / "sandbox")


def test_a_master_tells_about_its_machine(
    make_server: Callable[..., ServerProcess], sandbox: SandboxProcess, tmp_path: Path
) -> None:
    with Sshd(tmp_path / "sshd") as sshd, sandbox:
        server = make_server(local_instances=True, ssh_key_dirs=sshd.directory)
        port = named(server, sshd, sandbox.comfyui_port)
        picture = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
        requests.post(
            f"http://127.0.0.1:{port}/upload/image",
            files={"image": ("a.png", picture)},
            data={"subfolder": "x"},
            timeout=30,
        ).raise_for_status()
        bases = (server.url.removesuffix("/comfyui/workflow"), f"http://127.0.0.1:{port}/api")
        for base in (f"{each}/distributed" for each in bases):
            told = requests.get(f"{base}/system_info", timeout=30).json()
            assert (told["status"], told["platform"]["path_separator"]) == ("success", "/")
            assert told["hostname"] and told["machine_id"]
            network = requests.get(f"{base}/network_info", timeout=30).json()
            assert network["recommended_ip"] in network["all_ips"]
            log = requests.get(f"{base}/local_log?lines=2", timeout=30).json()
            assert log["source"] == "memory" and log["entries"] <= 2
            loaded = requests.post(f"{base}/load_image", json={"image_path": "x/a.png"}, timeout=30).json()
            digest = hashlib.md5(picture, usedforsecurity=False).hexdigest()
            assert loaded["hash"] == digest
            assert loaded["image_data"].startswith("data:image/png;base64,")
            checked = {"filename": "x/a.png", "hash": digest}
            assert requests.post(f"{base}/check_file", json=checked, timeout=30).json() == {
                "status": "success",
                "exists": True,
                "hash_matches": True,
            }
            missing = {"filename": "b.png", "hash": digest}
            assert requests.post(f"{base}/check_file", json=missing, timeout=30).json()["exists"] is False
            answer = requests.post(f"{base}/load_image", json={"image_path": "b.png"}, timeout=30)
            assert (answer.status_code, answer.json()) == (404, {"error": "File not found: b.png"})
            assert requests.post(f"{base}/clear_memory", timeout=30).json()["status"] == "success"


def test_at_a_local_port_its_instance_is_the_master(
    make_server: Callable[..., ServerProcess], sandbox: SandboxProcess, tmp_path: Path
) -> None:
    with Sshd(tmp_path / "sshd") as sshd, sandbox:
        server = make_server(local_instances=True, ssh_key_dirs=sshd.directory)
        instances_url = server.url.removesuffix("/workflow") + "/instances"
        first = {"name": "first", "ssh_connection": "ssh first.example"}
        requests.post(instances_url, json=first, timeout=30).raise_for_status()
        with_port = {"name": "second", "ssh_connection": "ssh second.example", "local_port": _free_port()}
        requests.post(instances_url, json=with_port, timeout=30).raise_for_status()
        at_port = f"http://127.0.0.1:{with_port['local_port']}/distributed"
        assert requests.get(f"{at_port}/config", timeout=10).status_code == 200
        at_server = server.url.removesuffix("/comfyui/workflow") + "/distributed"
        workers = {
            url: [each["id"] for each in requests.get(f"{url}/config", timeout=10).json()["workers"]]
            for url in (at_port, at_server)
        }
        assert workers == {at_port: ["first"], at_server: ["second"]}
        page = {"Origin": f"http://127.0.0.1:{with_port['local_port']}"}
        refused = requests.post(f"{at_port}/config", json={"workers": []}, headers=page, timeout=10)
        assert refused.status_code == 403
        assert "may never use this server" in refused.json()["error"]
        assert [each["id"] for each in requests.get(instances_url, timeout=10).json()["instances"]] == [
            "first",
            "second",
        ]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
