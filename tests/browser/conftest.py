"""A browser and a server for each worker, a page for each test, and checks that apply to all tests.

The scope is this folder instead of the whole session, because the browser's driver keeps an event loop in the
thread of the tests.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from comfyui_workflow.runs.model import FileType
from tests.browser import workflows
from tests.browser.chromium import require_chromium, running_chromium
from tests.browser.dashboard import Dashboard
from tests.browser.recorded import completed, failed, record
from tests.browser.watching import Watch
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess

RECORDED = 70
PATIENCE_MS = 40_000
expect.set_options(timeout=PATIENCE_MS)


def instances_url(server: ServerProcess) -> str:
    return server.url.replace("/workflow", "/instances")


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with running_chromium() as running:
        yield running


@pytest.fixture
def bare_page(browser: Browser) -> Iterator[Page]:
    """Opens a page in a new browser context, without cookies and cache of other tests."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()


@pytest.fixture
def watch(bare_page: Page) -> Watch:
    return Watch(bare_page)


@pytest.fixture
def page(bare_page: Page, watch: Watch) -> Iterator[Page]:
    yield bare_page
    watch.check()


@pytest.fixture(scope="package")
def _shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    require_chromium()
    directory = tmp_path_factory.mktemp("browser")
    with ServerProcess(directory, output_dir=directory / "data" / "outputs") as server:
        yield server


@pytest.fixture
def server(_shared_server: ServerProcess, sandbox: SandboxProcess, tmp_path: Path) -> Iterator[ServerProcess]:
    """The server of the worker. It may have finished runs of other tests, but no live runs and no named
    instances."""
    _shared_server.output_dir = tmp_path / "outputs"
    yield _shared_server
    now = _shared_server.get("/now")
    for run in now["executing"] + now["waiting"]:
        _shared_server.post(f"/{run['workflow_id']}/cancel")
        _shared_server.until_finished(run["workflow_id"])
    instances = instances_url(_shared_server)
    for instance in requests.get(instances, timeout=10).json()["instances"]:
        requests.delete(f"{instances}/{instance['id']}", timeout=10).raise_for_status()


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers for one test and stops them afterwards."""
    require_chromium()
    made: list[ServerProcess] = []

    def make(**settings: object) -> ServerProcess:
        directory = tmp_path / f"server {len(made)}"
        server = ServerProcess(directory, **{"output_dir": directory / "data" / "outputs", **settings})
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.kill()


@pytest.fixture
def dashboard(page: Page, watch: Watch, server: ServerProcess) -> Dashboard:
    return Dashboard(page, watch, server)


@pytest.fixture
def make_dashboard(page: Page, watch: Watch) -> Callable[[ServerProcess], Dashboard]:
    """A dashboard of a server for this test only."""
    return lambda server: Dashboard(page, watch, server)


@pytest.fixture(scope="module")
def many_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Creates finished runs: every tenth failed, every fifth of the others has a picture; the newest is the
    last."""
    require_chromium()
    directory = tmp_path_factory.mktemp("many")
    picture = workflows.picture(directory / "p.png")
    server = ServerProcess(directory)
    runs = []
    for number in range(RECORDED):
        files = [(picture, FileType.IMAGE)] if number % 5 == 1 else []
        is_bad = number % 10 == 0
        name = f"run {number:02}"
        runs.append(failed(name, "It broke.", number) if is_bad else completed(name, *files, number=number))
    record(server.data_dir, runs)
    with server:
        yield server


@pytest.fixture
def filled(make_dashboard: Callable[[ServerProcess], Dashboard], many_runs: ServerProcess) -> Dashboard:
    dashboard = make_dashboard(many_runs)
    dashboard.open()
    dashboard.row("run 69").wait_for()
    return dashboard
