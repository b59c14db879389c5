"""Takes the screenshots in docs/images: `python -m tests.docs.take_pictures`.

Starts the demo like `make demo`, adds a named machine and a few more runs, and opens two views in Chromium.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page

from comfyui_workflow import demo
from comfyui_workflow.client import WorkflowServer
from tests.browser.chromium import running_chromium
from tests.docs.pages import ROOT

SIZE = {"width": 1180, "height": 720}
WITHOUT_SCROLLBAR = {"x": 0, "y": 0, "width": 1165, "height": 720}
EARLIER = (
    (demo.TEXT_TO_IMAGE, "A town at night", {"6.text": "a town at night", "3.seed": 5, "3.steps": 6}),
    (demo.ENHANCE, "The lake, darker", {"5.blend_mode": "multiply"}),
    (demo.TEXT_TO_IMAGE, "A field in May", {"6.text": "a green field in May", "3.seed": 11, "3.steps": 6}),
    (demo.ENHANCE, "The lake, brighter", {"5.blend_mode": "screen"}),
    (demo.TEXT_TO_IMAGE, "Winter", {"6.text": "snow, winter, blue", "3.seed": 3, "3.steps": 6}),
    (demo.ENHANCE, "The lake, soft light", {"5.blend_factor": 0.9}),
)
PICTURES_ARE_THERE = """() => [...document.images]
    .filter((image) => image.checkVisibility() && image.getBoundingClientRect().top < innerHeight)
    .every((image) => image.complete && image.naturalWidth)"""
SHOWN_AT_PERCENT = 55
"""Progress of the sampler of the run in the screenshot."""


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        running_demo(Path(directory)) as (ssh_string, url),
        WorkflowServer(url) as server,
        running_chromium() as browser,
    ):
        page = browser.new_page(viewport=SIZE, bypass_csp=True)  # scripts run in the page
        (first,) = server.runs()
        take(page, f"{url}/#/run/{first.workflow_id}", "run.png")
        server.instances.add(name="left", ssh_connection=ssh_string, price_per_hour=0.5)
        for workflow, name, inputs in EARLIER:
            server.wait(order(server, workflow, name, inputs))
        running = order(server, demo.TEXT_TO_IMAGE, "A lake in the evening", {})
        order(server, demo.ENHANCE, "The lake, overlay", {"5.blend_mode": "overlay"})
        for progress in server.watch(running):
            if (progress.raw["current_node_progress"] or 0) > SHOWN_AT_PERCENT:
                break
        take(page, f"{url}/#/", "page.png")


@contextmanager
def running_demo(directory: Path) -> Iterator[tuple[str, str]]:
    """Waits until the run of the demo has ended; yields the ssh string and the URL of the demo."""
    own = {"COMFYUI_WORKFLOW_DATA_DIR": str(directory), "COMFYUI_WORKFLOW_PORT": "0", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "comfyui_workflow", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | own,
    )
    try:
        assert process.stdout is not None
        said = []
        while "The picture is here" not in (line := process.stdout.readline()):
            assert line, "".join(said)
            said.append(line.strip())
        ssh_string = next(line for line in said if line.startswith("ssh "))
        yield ssh_string, next(line for line in said if line.startswith("Serving on ")).split()[-1]
    finally:
        process.terminate()
        process.communicate(timeout=30)


def order(server: WorkflowServer, workflow: Path, name: str, inputs: dict[str, object]) -> str:
    pictures = [demo.EXAMPLE_PICTURE] if workflow is demo.ENHANCE else []
    return server.execute(
        workflow=workflow, ssh_connection="left", workflow_name=name, inputs=inputs, input_images=pictures
    ).workflow_id


def take(page: Page, address: str, name: str) -> None:
    """Waits until all visible pictures are loaded."""
    page.goto(address)
    page.locator("main img").first.wait_for()
    page.wait_for_function(PICTURES_ARE_THERE)
    page.screenshot(path=str(ROOT / "docs" / "images" / name), clip=WITHOUT_SCROLLBAR)


if __name__ == "__main__":
    main()
