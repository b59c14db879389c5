"""What the instance lacks: shown after a check, and downloaded by one button."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.chromium import require_chromium
from tests.browser.dashboard import Dashboard
from tests.browser.watching import Watch
from tests.provisioning.file_server import FileServer, ServedFile
from tests.provisioning.workflows import editor_file
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess
from tests.sshd import Sshd

GET_IT = "Get what is missing, and start"


@pytest.fixture
def web() -> Iterator[FileServer]:
    with FileServer().running() as web:
        yield web


@pytest.fixture
def dashboard(page: Page, watch: Watch, web: FileServer, tmp_path: Path) -> Iterator[Dashboard]:
    require_chromium()
    with ServerProcess(tmp_path / "server", PROVISION_HOSTS=web.origin) as server:
        server.output_dir = tmp_path / "outputs"
        yield Dashboard(page, watch, server)


def test_what_is_missing_is_shown_and_fetched(
    dashboard: Dashboard, sandbox: SandboxProcess, web: FileServer, tmp_path: Path
) -> None:
    web.files["m"] = ServedFile(content=b"x" * 50_000)
    sshd = Sshd(tmp_path / "sshd")
    sshd.start_shells_in(tmp_path / "home")
    name = f"{tmp_path.name}.safetensors"
    file = tmp_path / "w.json"
    file.write_text(json.dumps(editor_file(name, web.url("m"))))
    with sshd:
        dashboard.open("start")
        dashboard.choose_workflow(file)
        dashboard.give_ssh(sshd.ssh_string(comfyui_port=sandbox.comfyui_port))
        dashboard.press("Check")
        expect(dashboard.part("Missing on the instance")).to_contain_text(f"{name} 50.0 KB from 127.0.0.1")
        dashboard.press(GET_IT)
        dashboard.until_chip("Completed")
    assert len(web.gets("m")) == 1
    (sandbox.output_dir.parent / "models" / "checkpoints" / name).unlink()  # other tests see the sandbox too


def test_what_cannot_be_fetched_has_no_button(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    file = tmp_path / "w.json"
    file.write_text(json.dumps(editor_file("<b>.safetensors", "https://example.com/m")))
    dashboard.open("start")
    dashboard.choose_workflow(file)
    dashboard.give_ssh(sandbox.ssh_string)
    dashboard.press("Check")
    expect(dashboard.part("Missing on the instance")).to_contain_text("cannot be had: example.com is not in")
    expect(dashboard.page.get_by_role("button", name=GET_IT)).to_have_count(0)
