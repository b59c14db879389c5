"""The page as a user operates it.

dashboard.open("start")                              # a view, by its address
run_id = dashboard.start(workflow_file, ssh_string)  # with mouse and keyboard; waits for the view of the run
dashboard.until_chip("Completed")
"""

from pathlib import Path
from urllib.parse import unquote

from playwright.sync_api import Locator, Page, expect

from tests.browser.watching import Watch
from tests.server_process import ServerProcess


class Dashboard:
    def __init__(self, page: Page, watch: Watch, server: ServerProcess) -> None:
        self.page = page
        self.watch = watch
        self.server = server
        self.root = server.url.removesuffix("/comfyui/workflow")

    def open(self, view: str = "") -> None:
        self.page.goto(f"{self.root}/#/{view}")

    def open_run(self, run_id: str) -> None:
        self.open(f"run/{run_id}")
        self.page.locator("h1").wait_for()

    @property
    def run_id(self) -> str:
        """The id of the run whose view is open."""
        self.page.wait_for_url("**/#/run/*")
        return unquote(self.page.url.rpartition("/")[2])

    def choose_workflow(self, *files: Path) -> None:
        self.part("Workflow").locator("input[type=file]").set_input_files(files)
        self.part("Inputs").wait_for()

    def give_ssh(self, ssh_string: str) -> None:
        self.page.get_by_label("ssh string").fill(ssh_string)

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def start(self, workflow: Path, ssh_string: str) -> str:
        """Starts a run on the page, waits for its view, and returns the id of the run."""
        self.open("start")
        self.choose_workflow(workflow)
        self.give_ssh(ssh_string)
        self.press("Start")
        return self.run_id

    def part(self, name: str) -> Locator:
        """Finds a section of the view by its heading."""
        return self.page.get_by_role("region", name=name, exact=True)

    def node(self, title: str) -> Locator:
        """A node of the run whose view is open."""
        return self.part("Nodes").locator("li.node").filter(has=self.page.get_by_text(title, exact=True))

    def row(self, name: str) -> Locator:
        """A row of the list of all runs."""
        return self.part("All runs").locator(".row").filter(has=self.page.get_by_text(name, exact=True))

    def until_chip(self, text: str) -> None:
        """Waits for the status in the header of the run."""
        expect(self.page.locator("header.head .chip")).to_have_text(text)

    def notice(self) -> Locator:
        return self.page.locator("#notice")
