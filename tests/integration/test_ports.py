"""The port of ComfyUI on an instance behind a real sshd: searched, told, remembered by the run; what else
stands on the port has a sentence of its own, within ten seconds."""

import base64
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from tests.integration.graphs import painted
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess
from tests.sshd import Sshd

SOON_S = 30.0
Make = Callable[..., ServerProcess]


class JupyterHandler(BaseHTTPRequestHandler):
    server_version, sys_version = "TornadoServer/6.4.1", ""

    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header("Location", "/login?next=%2Fprompt")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


class CaddyHandler(JupyterHandler):
    server_version = "Caddy"

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="restricted"')
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@contextmanager
def sshd_to(directory: Path, *ports: int) -> Iterator[Sshd]:
    """Forwards to these ports only: other tests run ComfyUIs on this machine too."""
    sshd = Sshd(directory)
    sshd.add_config("PermitOpen " + " ".join(f"localhost:{port}" for port in ports))
    with sshd:
        yield sshd


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Bound and not listening: nobody else gets it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_comfyui_is_found_where_the_ssh_string_has_another_program(
    make_server: Make, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    server = make_server(search_ports=True)
    with (
        serving(JupyterHandler) as jupyter,
        sshd_to(tmp_path / "sshd", jupyter, sandbox.comfyui_port) as sshd,
    ):
        ssh_string = sshd.ssh_string(comfyui_port=jupyter)
        first, second = (server.execute(ssh_string, painted(color)) for color in (1, 2))
        for run_id in (first, second):
            done = server.until_finished(run_id)
            assert done["status"] == "completed", done["error_message"]
            assert done["notices"] == [
                f"ComfyUI was found on port {sandbox.comfyui_port} of the instance: port {jupyter} is Jupyter"
            ]
        assert sshd.connection_count() == 1
    assert len(sandbox.executions()) == 2


@contextmanager
def listening_only_on(host: str, comfyui_port: int) -> Iterator[int]:
    """ComfyUI at another address of its machine: a port that is closed on 127.0.0.1. Yields the port."""

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", comfyui_port)) as behind:
                back = threading.Thread(target=pump, args=(behind, self.request), daemon=True)
                back.start()
                pump(self.request, behind)
                back.join()

    class Server(socketserver.ThreadingTCPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads, block_on_close, allow_reuse_address = True, False, True

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with Server((host, closed.getsockname()[1]), Relay) as server:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            yield closed.getsockname()[1]
            server.shutdown()


@pytest.mark.parametrize(("host", "tells"), [("127.0.0.3", True), ("::1", True), ("::1", False)])
def test_a_comfyui_on_another_address_of_its_machine_is_found(
    make_server: Make, sandbox: SandboxProcess, tmp_path: Path, host: str, tells: bool
) -> None:
    """Also by a server that was restarted meanwhile. A machine without SFTP does not tell its addresses: then
    those of localhost are asked."""
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("no IPv6")
    server = make_server()
    with listening_only_on(host, sandbox.comfyui_port) as port:
        sshd = Sshd(tmp_path / "sshd")
        sshd.add_config(*([] if tells else ["MaxSessions 0"]))
        with sshd:
            sandbox.faults(step_delay_s=0.2)
            run_id = server.execute(sshd.ssh_string(comfyui_port=port), painted())
            server.until(run_id, lambda p: p["prompt_id"] is not None)
            server.kill()
            server.start()
            done = server.until_finished(run_id)
    assert (done["status"], done["notices"]) == ("completed", []), done["error_message"]
    assert len(sandbox.executions()) == 1


def test_a_comfyui_on_another_address_and_port_is_found(
    make_server: Make, sandbox: SandboxProcess, tmp_path: Path, closed_port: int
) -> None:
    server = make_server(search_ports=True)
    with listening_only_on("127.0.0.3", sandbox.comfyui_port) as port:
        sshd = Sshd(tmp_path / "sshd")
        sshd.add_config(f"PermitOpen localhost:{closed_port} 127.0.0.3:{port}")
        with sshd:
            done = server.until_finished(server.execute(sshd.ssh_string(comfyui_port=closed_port), painted()))
    assert done["status"] == "completed", done["error_message"]
    assert f"ComfyUI was found on port {port} of the instance" in done["notices"][0]


def failure_of(server: ServerProcess, ssh_string: str) -> tuple[str, float]:
    """The error of a run there, and after how many seconds it was told."""
    before_s = time.monotonic()
    done = server.until_finished(server.execute(ssh_string, painted()))
    assert (done["status"], done["error_code"]) == ("failed", "comfyui_not_found")
    return done["error_message"], time.monotonic() - before_s


@pytest.mark.parametrize(
    ("handler", "sentence"),
    [
        (JupyterHandler, "No ComfyUI was found on the instance: port {} is Jupyter;"),
        (
            CaddyHandler,
            "Port {} of the instance asks for a login (Caddy): give the instance comfyui_token, or",
        ),
    ],
)
def test_another_program_is_told_at_once(
    server: ServerProcess, tmp_path: Path, handler: type[BaseHTTPRequestHandler], sentence: str
) -> None:
    with serving(handler) as port, sshd_to(tmp_path / "sshd", port) as sshd:
        message, seconds = failure_of(server, sshd.ssh_string(comfyui_port=port))
    assert message.startswith(sentence.format(port))
    assert "18188" in message
    assert "8188" in message.replace("18188", "")
    assert seconds < SOON_S


def test_a_forbidden_tunnel_is_told_at_once(
    server: ServerProcess, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    sshd = Sshd(tmp_path / "sshd")
    sshd.add_config("AllowTcpForwarding no")
    with sshd:
        message, seconds = failure_of(server, sshd.ssh_string(comfyui_port=sandbox.comfyui_port))
    assert message.startswith("The SSH server of the instance does not allow a tunnel to port")
    assert str(sandbox.comfyui_port) in message
    assert seconds < SOON_S


def test_a_login_that_only_prints_a_reason_tells_it(
    server: ServerProcess, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    """The keys of root in the images of clouds: a text, a pause, no tunnel."""
    sshd = Sshd(tmp_path / "sshd")
    text = 'Please login as the user "ubuntu" rather than the user "root".'
    sshd.add_config("AllowTcpForwarding no", f"ForceCommand echo '{text}'; sleep 60; exit 142")
    with sshd:
        message, seconds = failure_of(server, sshd.ssh_string(comfyui_port=sandbox.comfyui_port))
    assert message.startswith("The SSH server of the instance does not allow a tunnel to port")
    assert message.endswith(f'It says: "{text}"')
    assert seconds < SOON_S


def test_a_machine_that_is_still_starting_is_waited_for(
    server: ServerProcess, tmp_path: Path, sandbox: SandboxProcess
) -> None:
    sandbox.kill()
    port = sandbox.comfyui_port
    try:
        with sshd_to(tmp_path / "sshd", port) as sshd:
            run_id = server.execute(sshd.ssh_string(comfyui_port=port), painted())
            waiting = server.until(run_id, lambda p: "listens on" in (p["message"] or ""), timeout_s=SOON_S)
            assert f" {port}" in waiting["message"]
            assert waiting["status"] == "queued"
            sandbox.start()
            assert server.until_finished(run_id)["status"] == "completed"
    finally:
        if not sandbox.is_running:
            sandbox.start()


def test_a_run_never_follows_its_prompt_to_another_comfyui(
    make_server: Make, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    """The prompt is submitted, the server dies, and at its next start only another ComfyUI answers there."""
    server = make_server(search_ports=True)
    with (
        SandboxProcess(tmp_path / "other") as other,
        serving(JupyterHandler) as jupyter,
        sshd_to(tmp_path / "sshd", jupyter, sandbox.comfyui_port, other.comfyui_port) as sshd,
    ):
        other.kill()
        ssh_string = sshd.ssh_string(comfyui_port=jupyter)
        sandbox.faults(step_delay_s=0.2)
        run_id = server.execute(ssh_string, painted())
        server.until(run_id, lambda p: p["prompt_id"] is not None)
        server.kill()
        sandbox.kill()
        other.start()
        server.start()
        waiting = server.until(run_id, lambda p: str(sandbox.comfyui_port) in (p["message"] or ""))
        assert "where this run has used it: nothing listens on port" in waiting["message"]
        fresh = server.until_finished(server.execute(ssh_string, painted(7)))
        assert fresh["status"] == "completed"
        assert [each["prompt_id"] for each in other.executions()] == [fresh["prompt_id"]]
        sandbox.start()
        assert server.until_finished(run_id)["status"] == "completed"
        assert [each["prompt_id"] for each in other.executions()] == [fresh["prompt_id"]]


TOKEN = "a-secret-of-the-instance"


@contextmanager
def gate(comfyui_port: int, authorization: str) -> Iterator[int]:
    """Caddy before ComfyUI: passes connections whose first request has this header. Yields its port."""
    expected = f"\r\nauthorization: {authorization}\r\n".lower().encode()

    class Gate(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            head = self.request.recv(65536)
            if expected not in head.lower():
                self.request.sendall(
                    b"HTTP/1.1 401 Unauthorized\r\nServer: Caddy\r\nContent-Length: 0\r\n"
                    b'WWW-Authenticate: Basic realm="restricted"\r\nConnection: close\r\n\r\n'
                )
                return
            with socket.create_connection(("127.0.0.1", comfyui_port)) as behind:
                behind.sendall(head)
                back = threading.Thread(target=pump, args=(behind, self.request), daemon=True)
                back.start()
                pump(self.request, behind)
                back.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Gate) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def instances_url(server: ServerProcess) -> str:
    return server.url.removesuffix("/workflow") + "/instances"


@pytest.mark.parametrize(
    ("login", "authorization"),
    [
        ({"comfyui_token": TOKEN}, f"Bearer {TOKEN}"),
        (
            {"comfyui_user": "vastai", "comfyui_password": TOKEN},
            "Basic " + base64.b64encode(f"vastai:{TOKEN}".encode()).decode(),
        ),
    ],
)
def test_a_login_is_passed_and_never_shown(
    make_server: Make,
    sandbox: SandboxProcess,
    tmp_path: Path,
    login: dict[str, str],
    authorization: str,
) -> None:
    server = make_server()
    kind = "token" if "comfyui_token" in login else "password"
    with (
        gate(sandbox.comfyui_port, authorization) as port,
        sshd_to(tmp_path / "sshd", port) as sshd,
        socket.socket() as claimed,
    ):
        claimed.bind(("127.0.0.1", 0))
        local_port = claimed.getsockname()[1]
        claimed.close()
        body = {
            "name": "gpu",
            "ssh_connection": sshd.ssh_string(comfyui_port=port),
            "local_port": local_port,
            "comfyui_token": "wrong",
        }
        url = instances_url(server)
        assert requests.post(url, json=body, timeout=10).status_code == 201
        done = server.until_finished(server.execute("gpu", painted()))
        assert "does not accept its token" in done["error_message"]
        nothing = {"comfyui_token": None}
        changed = requests.patch(f"{url}/gpu", json={**nothing, **login}, timeout=10)
        assert changed.json()["instance"]["comfyui_login"] == kind
        done = server.until_finished(server.execute("gpu", painted()))
        assert done["status"] == "completed", done["error_message"]
        by_string = server.until_finished(server.execute(body["ssh_connection"], painted(3)))
        assert by_string["status"] == "completed"
        through_local_port = requests.get(f"http://127.0.0.1:{local_port}/prompt", timeout=10)
        assert through_local_port.json()["exec_info"]["queue_remaining"] == 0
        secret_file = server.data_dir / "logins" / "gpu"
        assert secret_file.stat().st_mode & 0o777 == 0o600
        seen = [each.text for each in (changed, requests.get(url, timeout=10))] + [server.log()]
        written = [each.read_bytes() for each in server.directory.rglob("*") if each.is_file()]
        assert not [text for text in seen if TOKEN in text]
        assert sum(TOKEN.encode() in content for content in written) == 1
        assert requests.delete(f"{url}/gpu", timeout=10).status_code == 200
        assert not secret_file.exists()


@pytest.mark.parametrize(
    "login",
    [
        {"comfyui_token": "a b"},
        {"comfyui_token": "a\r\nX: y"},
        {"comfyui_token": "ключ"},
        {"comfyui_token": 5},
        {"comfyui_token": "a", "comfyui_user": "b", "comfyui_password": "c"},
        {"comfyui_user": "a"},
        {"comfyui_password": "a"},
        {"comfyui_user": "a:b", "comfyui_password": "c"},
        {"comfyui_user": "a", "comfyui_password": "\n"},
        {"comfyui_user": "a", "comfyui_password": 5},
        {"comfyui_token": "a" * 5000},
    ],
)
def test_what_is_no_login_is_refused_without_its_value(
    server: ServerProcess, login: dict[str, object]
) -> None:
    body = {"name": "none", "ssh_connection": "ssh root@192.0.2.1", **login}
    answer = requests.post(instances_url(server), json=body, timeout=10)
    assert answer.status_code == 400
    assert "comfyui_" in answer.json()["message"]
    assert "ключ" not in answer.text
    assert requests.get(f"{instances_url(server)}/none", timeout=10).status_code == 404
