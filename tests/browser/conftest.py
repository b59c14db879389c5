"""A browser, a server with two runs, and a site that is neither; all for one file of tests.

Not for the whole session: the browser's driver keeps an event loop in the thread of the tests.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from comfyui_workflow.runs.events import PromptSucceeded, RunCompleted, RunFailed
from comfyui_workflow.runs.model import OutputFile, Run
from comfyui_workflow.runs.progress import apply
from comfyui_workflow.stores.json_file import JsonFileStore
from tests.browser.chromium import require_chromium, running_chromium, running_site
from tests.server_process import ServerProcess
from tests.unit.test_progress import AT, new_run

HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script>&lt;b&gt;'
SECRET = "seen-nowhere-else"
REFUSED_SSH = "ssh -p 1 root@127.0.0.1"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """In a context of its own: no cookie and no cache of another test."""
    context = browser.new_context()
    context.set_default_timeout(20_000)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def site_port() -> Iterator[int]:
    with running_site() as port:
        yield port


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """With a run that is completed, one that failed, and one that tries to reach its instance."""
    require_chromium()
    directory = tmp_path_factory.mktemp("browser")
    key = directory / "key"  # with one there is something to try
    paramiko.ECDSAKey.generate().write_private_key_file(str(key))
    served = ServerProcess(directory, ssh_key=key)
    store = JsonFileStore(served.data_dir, None)
    store.open()
    for run in recorded_runs(directory):
        store.add(run)
        store.update(
            run.workflow_id, lambda run: apply(run, RunCompleted(), AT) if run.outputs else failed(run)
        )
    store.close()
    with served:
        served.execute(REFUSED_SSH, new_run().request.graph, workflow_name=SECRET)
        yield served


def recorded_runs(directory: Path) -> list[Run]:
    picture = directory / f"{SECRET}.png"
    Image.new("RGB", (40, 30), "red").save(picture)
    run = new_run()
    request = replace(run.request, workflow_name=HOSTILE)
    output = OutputFile(filename=picture.name, local_path=str(picture))
    completed = apply(replace(run, request=request), PromptSucceeded(outputs=(output,)), AT)
    return [completed, replace(run, request=request, workflow_id="comfyui_workflow_1700000000_ab")]


def failed(run: Run) -> Run:
    return apply(run, RunFailed(code="connection_failed", message=f"It said: {HOSTILE}"), AT)
