"""The page of a rented machine at its local port cannot use the server; tested in a real browser."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Page

from tests.browser.chromium import require_chromium, running_site
from tests.browser.conftest import instances_url
from tests.browser.test_other_sites import EMBED, FETCH, POST_FORM
from tests.integration.graphs import painted
from tests.sandbox.running_comfyui import wait_until
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END OPENSSH PRIVATE KEY-----\n"
SANDBOXED = """([sandbox, script]) => new Promise(resolve => {
    window.onmessage = event => resolve(event.data);
    const frame = document.createElement("iframe");
    frame.sandbox = sandbox;
    frame.srcdoc = `<script type="module">${script}</script>`;
    document.body.append(frame);
})"""
USE_PORT = """
const told = {};
try {
    const answer = await fetch("http://%(port)s/prompt");
    told.read = await answer.text();
} catch (error) { told.read = null; }
try {
    const init = {method: "POST", mode: "no-cors", body: JSON.stringify({prompt: %(graph)s})};
    await fetch("http://%(port)s/prompt", init);
} catch (error) {}
told.heard = await new Promise(resolve => {
    const socket = new WebSocket("ws://%(port)s/ws?clientId=frame");
    socket.onmessage = event => resolve(event.data);
    socket.onerror = () => resolve(null);
});
parent.postMessage(told, "*");
"""


@dataclass(kw_only=True)
class Place:
    server: ServerProcess
    sandbox: SandboxProcess
    port: int
    home: Path

    @property
    def root(self) -> str:
        return self.server.url.removesuffix("/comfyui/workflow")

    def order(self) -> dict[str, object]:
        """Request of an attacker: a run that reads a key and writes to a directory of programs."""
        return {
            "ssh_connection": "rented",
            "workflow": painted(),
            "input_images": [str(self.home / ".ssh" / "id_ed25519")],
            "output_dir": str(self.home / ".config" / "autostart"),
        }

    def check(self) -> None:
        """Asserts that no run was started, no key was copied and no file was written."""
        assert self.server.get("")["workflows"] == []
        assert not list(self.sandbox.input_dir.glob("id_*"))
        assert not (self.home / ".config").exists()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.fixture
def place(tmp_path: Path, sandbox: SandboxProcess) -> Iterator[Place]:
    """Starts a server and an instance with a local port."""
    require_chromium()
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_text(KEY)
    port = free_port()
    # this setting allows every port of this machine
    with ServerProcess(tmp_path, cors_hosts=f"http://localhost:{port},http://127.0.0.1:{port}") as server:
        instance = {"name": "rented", "ssh_connection": sandbox.ssh_string, "local_port": port}
        requests.post(instances_url(server), json=instance, timeout=10).raise_for_status()
        wait_until(lambda: accepts(port))
        yield Place(server=server, sandbox=sandbox, port=port, home=home)


@pytest.fixture(params=["127.0.0.1", "localhost"])
def rented_page(request: pytest.FixtureRequest, bare_page: Page, place: Place) -> Page:
    """Opens the page at the local port, whose JavaScript comes from the instance."""
    answer = bare_page.goto(f"http://{request.param}:{place.port}/")
    assert answer is not None
    assert answer.status == 200
    return bare_page


def test_it_reads_and_starts_nothing(rented_page: Page, place: Place) -> None:
    page, url = rented_page, f"{place.server.url}/execute"
    text = page.evaluate("JSON.stringify", place.order())
    json_type = {"Content-Type": "application/json"}
    for options in (
        {"method": "POST", "headers": json_type, "body": text},
        {"method": "POST", "headers": {"Content-Type": "text/plain"}, "body": text},
        {"method": "POST", "mode": "no-cors", "body": text},
        {"method": "POST", "mode": "no-cors", "body": text, "referrerPolicy": "no-referrer"},
    ):
        found = page.evaluate(FETCH, [url, options])
        assert not found.get("text"), options
    page.evaluate("([url, text]) => navigator.sendBeacon(url, text)", [url, text])
    for path in ("", "/state", "/../instances", "/../../health"):
        assert "failed" in page.evaluate(FETCH, [place.server.url + path, {}])
    place.check()


def test_it_embeds_nothing(rented_page: Page, place: Place) -> None:
    for tag, path in (
        ("img", "/static/icon.svg"),
        ("script", "/static/app.js"),
        ("link", "/static/style.css"),
        ("script", "/comfyui/workflow/state"),
    ):
        assert rented_page.evaluate(EMBED, [tag, place.root + path]) == "refused", path
    rented_page.evaluate(EMBED, ["iframe", f"{place.root}/"])
    assert not any("Runs" in frame.content() for frame in rented_page.frames)


def test_its_form_does_nothing(rented_page: Page, place: Place) -> None:
    text = rented_page.evaluate("JSON.stringify", {**place.order(), "workflow_name": ""})
    with rented_page.expect_navigation() as navigation:
        rented_page.evaluate(POST_FORM, [f"{place.server.url}/execute", text[:-2], '"}'])
    assert navigation.value.status == 403
    assert "may never use this server" in navigation.value.json()["message"]
    place.check()


def test_it_is_refused_also_when_its_instance_is_gone(rented_page: Page, place: Place) -> None:
    requests.delete(f"{instances_url(place.server)}/rented", timeout=10).raise_for_status()
    assert "failed" in rented_page.evaluate(FETCH, [f"{place.server.url}/state", {}])
    place.server.terminate()
    place.server.start()
    assert "failed" in rented_page.evaluate(FETCH, [f"{place.server.url}/state", {}])


@pytest.mark.parametrize("sandbox_words", ["allow-scripts", "allow-scripts allow-forms"])
def test_a_sandboxed_frame_of_any_site_hears_and_does_nothing_at_a_local_port(
    bare_page: Page, place: Place, sandbox_words: str
) -> None:
    """The origin of a sandboxed frame is `null`."""
    graph = bare_page.evaluate("JSON.stringify", painted(7))
    with running_site() as site_port:
        for page_url in (f"http://other.example:{site_port}/", f"http://127.0.0.1:{place.port}/"):
            bare_page.goto(page_url)
            script = USE_PORT % {"port": f"127.0.0.1:{place.port}", "graph": graph}
            assert bare_page.evaluate(SANDBOXED, [sandbox_words, script]) == {"read": None, "heard": None}
    history = requests.get(f"http://127.0.0.1:{place.port}/history", timeout=10).json()
    queue = requests.get(f"http://127.0.0.1:{place.port}/queue", timeout=10).json()
    prompts = (
        [entry["prompt"] for entry in history.values()] + queue["queue_running"] + queue["queue_pending"]
    )
    assert painted(7) not in [prompt[2] for prompt in prompts]


def test_a_page_of_another_port_hears_and_does_nothing_at_a_local_port(bare_page: Page, place: Place) -> None:
    """The page has the same position as a page of another instance: another port of this machine."""
    with running_site() as site_port:
        bare_page.goto(f"http://127.0.0.1:{site_port}/")
        base = f"127.0.0.1:{place.port}"
        heard = bare_page.evaluate(
            """url => new Promise(resolve => {
                const socket = new WebSocket(url);
                socket.onmessage = event => resolve(event.data);
                socket.onerror = () => resolve(null);
            })""",
            f"ws://{base}/ws",
        )
        assert heard is None
        assert "failed" in bare_page.evaluate(FETCH, [f"http://{base}/prompt", {}])
        assert bare_page.evaluate(EMBED, ["script", f"http://{base}/object_info"]) == "refused"


def test_its_own_page_hears_and_reads(rented_page: Page, place: Place) -> None:
    own = rented_page.evaluate("location.host")
    heard = rented_page.evaluate(
        "url => new Promise(resolve => { new WebSocket(url).onmessage = event => resolve(event.data); })",
        f"ws://{own}/ws",
    )
    assert '"status"' in heard
    assert rented_page.evaluate(FETCH, ["/prompt", {}])["status"] == 200
