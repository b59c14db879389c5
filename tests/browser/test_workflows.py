"""Custom workflows on the page: the list, and the form that is made from the parameters."""

import json
from pathlib import Path

import pytest
import requests
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.dashboard import Dashboard
from tests.browser.watching import Watch
from tests.integration.graphs import loaded
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess
from tests.services.custom_files import write


@pytest.fixture
def custom_server(sandbox: SandboxProcess, tmp_path: Path) -> ServerProcess:
    directory = tmp_path / "workflows"
    parameters = {
        "photo": {"input": "1.image", "type": "file", "required": True, "title": "Photo"},
        "prefix": {"input": "3.filename_prefix", "description": "Begin of the file name", "default": "p"},
    }
    file = {"workflow": loaded("a.png"), "parameters": parameters, "summary": "Negative of a photo"}
    write(directory, "photos/negative.json", json.dumps(file))
    write(directory, "broken.json", "{")
    return ServerProcess(tmp_path / "server", workflow_dir=directory)


def test_a_form_is_made_from_the_parameters(
    page: Page, watch: Watch, custom_server: ServerProcess, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    Image.new("RGB", (7, 5)).save(tmp_path / "mine.png")
    with custom_server as server:
        instances = server.url.replace("/workflow", "/instances")
        entry = {"name": "box", "ssh_connection": sandbox.ssh_string}
        requests.post(instances, json=entry, timeout=30).raise_for_status()
        dashboard = Dashboard(page, watch, server)
        watch.allow_status(400, "/workflow/photos/negative")
        dashboard.open()
        page.get_by_role("link", name="Workflows", exact=True).click()
        expect(page.get_by_text("broken.json is not valid JSON")).to_be_visible()
        page.get_by_role("link", name="Negative of a photo").click()
        expect(page.get_by_label("prefix")).to_have_value("p")
        page.get_by_role("button", name="Start", exact=True).click()
        expect(page.get_by_role("status").filter(has_text="input.photo is required")).to_be_visible()
        page.locator("input[type=file]").set_input_files(str(tmp_path / "mine.png"))
        expect(page.get_by_text("mine.png")).to_be_visible()
        page.get_by_label("prefix").fill("negative")
        page.get_by_label("Instance").select_option("box")
        page.get_by_role("button", name="Start", exact=True).click()
        dashboard.until_chip("Completed")
        (output,) = server.progress(dashboard.run_id)["outputs"]
        assert output["filename"].startswith("negative")
        assert Image.open(output["local_path"]).size == (7, 5)
