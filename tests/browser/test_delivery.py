"""Format, upload and webhook on the page: at Start, for a run that is run again, and for custom workflows."""

import json
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest
import requests
from playwright.sync_api import Page, expect

from tests.browser import workflows
from tests.browser.chromium import require_chromium
from tests.browser.conftest import instances_url
from tests.browser.dashboard import Dashboard
from tests.browser.watching import Watch
from tests.delivery.receiver import Answer, Heard, receiving
from tests.integration.graphs import painted
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess
from tests.services.custom_files import write
from tests.storage.file_server import FileServer, serving_files

UPLOAD, WEBHOOK = "Upload the outputs to", "Webhook"


@pytest.fixture
def storage() -> Iterator[FileServer]:
    with serving_files() as served:
        yield served


@pytest.fixture
def dashboard(page: Page, watch: Watch, tmp_path: Path) -> Iterator[Dashboard]:
    require_chromium()
    write(tmp_path / "workflows", "paint.json", json.dumps({"workflow": painted(), "parameters": {}}))
    with ServerProcess(
        tmp_path / "server", private_urls="true", workflow_dir=tmp_path / "workflows"
    ) as server:
        server.output_dir = tmp_path / "outputs"
        yield Dashboard(page, watch, server)


def prepare(dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path) -> None:
    dashboard.open("start")
    dashboard.choose_workflow(workflows.saved(tmp_path / "w.json", painted()))
    dashboard.give_ssh(sandbox.ssh_string)
    dashboard.page.get_by_text("More: name, seeds").click()


def test_outputs_are_converted_uploaded_and_announced(
    dashboard: Dashboard,
    sandbox: SandboxProcess,
    storage: FileServer,
    tmp_path: Path,
) -> None:
    page, told = dashboard.page, SimpleQueue[Heard]()

    def note(heard: Heard) -> Answer:
        told.put(heard)
        return Answer()

    prepare(dashboard, sandbox, tmp_path)
    page.get_by_label("Image format").select_option("WebP")
    page.get_by_label("Quality").fill("70")
    page.get_by_label(UPLOAD).fill(f"{storage.url}/renders")
    with receiving() as receiver:
        receiver.answers = [note]
        page.get_by_label(WEBHOOK).fill(receiver.url())
        dashboard.press("Start")
        dashboard.until_chip("Completed")
        run_id = dashboard.run_id
        assert run_id in told.get(timeout=40).content.decode()
    (path,) = storage.files
    assert path.startswith("/renders/")
    assert path.endswith(".webp")

    dashboard.open(f"start?from={run_id}")
    expect(page.get_by_label("Image format")).to_have_value("webp")
    expect(page.get_by_label("Quality")).to_have_value("70")
    expect(page.get_by_label(UPLOAD)).to_have_value(f"{storage.url}/renders")
    page.get_by_label(UPLOAD).fill("")
    page.get_by_label("Image format").select_option("")
    dashboard.press("Start")
    page.wait_for_url(lambda url: "#/run/" in url and run_id not in url)
    dashboard.until_chip("Completed")
    sent = dashboard.server.get(f"/{dashboard.run_id}/request")["request"]
    assert {"upload", "convert"}.isdisjoint(sent)


@pytest.mark.parametrize(
    "wrong",
    [
        (UPLOAD, "my-bucket/renders", "upload must be a URL such as s3://bucket/prefix"),
        (UPLOAD, '{"s3": {}}', "s3.bucket is required"),
        (WEBHOOK, "example.com", "must begin with http"),
        ("Quality", "101", "convert.options.quality must be"),
    ],
)
def test_a_wrong_field_is_told_in_a_sentence(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path, wrong: tuple[str, str, str]
) -> None:
    page, (label, value, said) = dashboard.page, wrong
    dashboard.watch.allow_status(400, "/comfyui/workflow/")
    prepare(dashboard, sandbox, tmp_path)
    page.get_by_label("Image format").select_option("WebP")
    page.get_by_label(label).fill(value)
    for button in ("Check", "Start"):
        dashboard.press(button)
        expect(page.locator(".footer [role=status]")).to_contain_text(said)


def test_a_reload_keeps_them_without_their_secrets(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    page = dashboard.page
    prepare(dashboard, sandbox, tmp_path)
    page.get_by_label("Image format").select_option("JPEG")
    page.get_by_label(UPLOAD).fill("s3://renders/cats")
    page.get_by_label(WEBHOOK).fill("https://me:hush@example.com/hook")
    page.reload()
    expect(page.get_by_label("Image format")).to_have_value("jpeg")
    expect(page.get_by_label(UPLOAD)).to_have_value("s3://renders/cats")
    expect(page.get_by_label(WEBHOOK)).to_have_value("")
    assert "hush" not in page.evaluate("JSON.stringify({...localStorage, ...sessionStorage})")


def test_a_custom_workflow_has_the_same_fields(
    dashboard: Dashboard, sandbox: SandboxProcess, storage: FileServer
) -> None:
    page = dashboard.page
    dashboard.watch.allow_status(400, "/workflow/paint")
    entry = {"name": "box", "ssh_connection": sandbox.ssh_string}
    requests.post(instances_url(dashboard.server), json=entry, timeout=30).raise_for_status()
    dashboard.open("workflows/paint")
    page.get_by_text("More: image format").click()
    page.get_by_label("Image format").select_option("JPEG")
    page.get_by_label(UPLOAD).fill("nowhere")
    dashboard.press("Start")
    expect(page.get_by_role("status").filter(has_text="upload must be a URL")).to_be_visible()
    page.get_by_label(UPLOAD).fill(f"{storage.url}/renders")
    dashboard.press("Start")
    dashboard.until_chip("Completed")
    assert [Path(path).suffix for path in storage.files] == [".jpeg"]
