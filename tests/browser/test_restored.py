"""After a reload, a restart or a failure, the page shows the current state again."""

import socket
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import expect

from tests.browser import workflows
from tests.browser.dashboard import Dashboard
from tests.integration.graphs import painted, slow
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess


@pytest.fixture
def kept_port() -> Iterator[int]:
    """Reserves a port without listening, so that no other program gets it between two starts of the
    server."""
    with socket.socket() as claim:
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        claim.bind(("127.0.0.1", 0))
        yield claim.getsockname()[1]


def test_a_reload_shows_the_same_run_and_it_goes_on(dashboard: Dashboard, sandbox: SandboxProcess) -> None:
    page = dashboard.page
    sandbox.faults(step_delay_s=0.2)
    run_id = dashboard.server.execute(
        sandbox.ssh_string, workflows.text_to_image(steps=150), workflow_name="through a reload"
    )
    dashboard.open_run(run_id)
    expect(dashboard.node("KSampler")).to_contain_text("of 150")
    page.reload()
    expect(page.locator("h1")).to_have_text("through a reload")
    assert dashboard.run_id == run_id
    expect(dashboard.node("KSampler")).to_contain_text("of 150")
    sandbox.faults(step_delay_s=0)
    dashboard.until_chip("Completed")
    expect(page.locator("ul.gallery img")).to_have_count(1)
    assert len(sandbox.executions()) == 1


def test_a_server_that_is_killed_and_started_again_in_mid_run(
    make_server: Callable[..., ServerProcess],
    make_dashboard: Callable[[ServerProcess], Dashboard],
    sandbox: SandboxProcess,
    kept_port: int,
) -> None:
    server = make_server(port=kept_port)
    dashboard = make_dashboard(server)
    dashboard.watch.allow_absence()
    run_id = server.execute(sandbox.ssh_string, slow(steps=80), workflow_name="through a death")
    server.until(run_id, lambda run: run["current_node_progress"])
    dashboard.open_run(run_id)
    dashboard.until_chip("Running")
    server.kill()
    expect(dashboard.notice()).to_have_text("The server does not respond. This page reconnects by itself.")
    expect(dashboard.page.locator("h1")).to_have_text("through a death")
    server.start()
    expect(dashboard.notice()).to_be_hidden()
    dashboard.until_chip("Completed")
    picture = dashboard.page.locator("ul.gallery img")
    assert picture.evaluate("async img => { await img.decode(); return img.naturalWidth; }") == 32
    assert len(sandbox.executions()) == 1


def test_a_start_that_no_server_hears_can_be_pressed_again(
    make_server: Callable[..., ServerProcess],
    make_dashboard: Callable[[ServerProcess], Dashboard],
    sandbox: SandboxProcess,
    kept_port: int,
) -> None:
    server = make_server(port=kept_port)
    dashboard = make_dashboard(server)
    dashboard.watch.allow_absence()
    dashboard.open("start")
    dashboard.choose_workflow(workflows.saved(server.directory / "w.json", painted()))
    dashboard.give_ssh(sandbox.ssh_string)
    server.kill()
    dashboard.press("Start")
    expect(dashboard.page.locator(".footer [role=status]")).to_contain_text("The server did not respond")
    server.start()
    dashboard.press("Start")
    dashboard.until_chip("Completed")
    assert len(sandbox.executions()) == 1


def test_a_run_that_there_is_not(dashboard: Dashboard) -> None:
    dashboard.watch.allow_status(404, "/comfyui/workflow/")
    dashboard.open("run/comfyui_workflow_1_1")
    expect(dashboard.page.locator("main")).to_contain_text("comfyui_workflow_1_1")
    expect(dashboard.page).to_have_title("Not found – ComfyUI runs")
    dashboard.page.get_by_role("link", name="Runs", exact=True).click()
    dashboard.part("Now").wait_for()
    expect(dashboard.notice()).to_be_hidden()


@pytest.mark.parametrize(
    "view", ["run/%E0%A4%A", "run/..%2F..%2Fhealth", "nothing", "?before=x&limit=9", "run/"]
)
def test_an_address_that_nobody_wrote(dashboard: Dashboard, view: str) -> None:
    """The page shows an understandable message and a link."""
    for status in (400, 404, 405):
        dashboard.watch.allow_status(status, "/comfyui/workflow")
    dashboard.open(view)
    shown = dashboard.page.locator("#notice:not(:empty), main h1")
    expect(shown.first).to_be_attached()
    dashboard.page.get_by_role("link", name="Instances", exact=True).click()
    expect(dashboard.page.locator("h1")).to_have_text("Instances")
    expect(dashboard.notice()).to_be_hidden()
