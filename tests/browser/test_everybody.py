"""Accessibility: the page with keyboard only, with a screen reader, in dark mode and on a phone."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Page, expect

from tests.browser import workflows
from tests.browser.conftest import instances_url
from tests.browser.dashboard import Dashboard
from tests.browser.inspecting import faint_texts, headings, ids_used_twice, too_wide, unnamed
from tests.browser.watching import Watch
from tests.integration.graphs import failing, loaded, painted, slow
from tests.sandbox_process import SandboxProcess

LONG = "a-name-without-any-place-to-break-it-" * 5
PHONE = {"width": 390, "height": 844}
MOST_TABS = 60
FOCUSED = """() => {
    const here = document.activeElement;
    const label = here.labels?.[0];
    const ring = [here, label].filter(Boolean).some(each => getComputedStyle(each).outlineStyle !== "none");
    const words = `${here.getAttribute("aria-label") ?? ""} ${here.textContent} ${label?.textContent ?? ""}`;
    return {tag: here.tagName, words, ring};
}"""


def tab_to(page: Page, tag: str, words: str) -> None:
    """Presses Tab until the element has the focus; the focus is visible at each step."""
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        here = page.evaluate(FOCUSED)
        assert here["ring"] or here["tag"] == "BODY", here
        if here["tag"] == tag and words in here["words"]:
            return
    pytest.fail(f"no Tab leads to {tag} {words}")


def test_a_run_is_started_and_seen_without_a_mouse(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    page = dashboard.page
    workflow = workflows.saved(tmp_path / "by keys.json", painted())
    page.on("filechooser", lambda chooser: chooser.set_files(workflow))
    dashboard.open()
    dashboard.part("Now").wait_for()
    tab_to(page, "A", "Start a run")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Start a run")).to_be_focused()
    tab_to(page, "INPUT", "Drop a workflow here, or choose a file")
    page.keyboard.press("Enter")
    dashboard.part("Inputs").wait_for()
    tab_to(page, "INPUT", "ssh string")
    page.keyboard.type(sandbox.ssh_string)
    tab_to(page, "BUTTON", "Start")
    page.keyboard.press("Enter")
    dashboard.until_chip("Completed")
    expect(page.get_by_role("heading", name="by keys")).to_be_focused()
    expect(page.locator("a.picture img")).to_have_count(1)
    while not page.evaluate("document.activeElement.matches('a.picture')"):
        tab_to(page, "A", "")
    page.keyboard.press("Enter")
    viewer = page.get_by_role("dialog", name="Picture")
    expect(viewer).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("a.picture")).to_be_focused()


def test_the_first_tab_leads_past_the_head(dashboard: Dashboard) -> None:
    page = dashboard.page
    dashboard.open()
    dashboard.part("Now").wait_for()
    tab_to(page, "A", "Skip to content")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    dashboard.part("Now").wait_for()


def test_a_look_leaves_the_focus_and_what_is_typed(dashboard: Dashboard, sandbox: SandboxProcess) -> None:
    page = dashboard.page
    server = dashboard.server
    server.until_finished(server.execute(sandbox.ssh_string, painted(), workflow_name="before"))
    dashboard.open()
    search = page.get_by_role("searchbox", name="Name")
    search.focus()
    page.keyboard.type("half a w")
    server.until_finished(server.execute(sandbox.ssh_string, painted(), workflow_name="meanwhile"))
    expect(dashboard.row("meanwhile").locator(".chip")).to_have_text("Completed")
    expect(search).to_be_focused()
    expect(search).to_have_value("half a w")
    page.keyboard.type("ord")
    expect(search).to_have_value("half a word")


def home(dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path) -> None:
    server = dashboard.server
    server.until_finished(server.execute(sandbox.ssh_string, failing(LONG), workflow_name=LONG))
    body = {"ssh_connection": sandbox.ssh_string, "workflow": painted(), "batch_name": f"batch {LONG}"}
    body |= {"rows": [{"1.color": 1}, {"1.color": 2}], "output_dir": str(tmp_path / "out")}
    for run_id in server.post("/batch", body).json()["workflow_ids"]:
        server.until_finished(run_id)
    first = server.execute(sandbox.ssh_string, slow(steps=600), workflow_name=f"live {LONG}")
    server.until_status(first, "executing")
    server.execute(sandbox.ssh_string, painted(), workflow_name=f"waiting {LONG}")
    dashboard.open()
    expect(dashboard.part("Now")).to_contain_text("1 run waits")
    dashboard.part("All runs").locator("summary").first.click()
    dashboard.part("All runs").get_by_role("link", name="Download all").wait_for()


def live_run(dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path) -> None:
    sandbox.faults(step_delay_s=0.2)
    graph = workflows.titled(workflows.text_to_image(steps=200), n3=LONG)
    dashboard.open_run(dashboard.server.execute(sandbox.ssh_string, graph, workflow_name=LONG))
    dashboard.page.get_by_role("img", name="Live preview").wait_for()


def finished_run(dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path) -> None:
    graph = workflows.titled(painted(prefix=LONG), n2=LONG)
    dashboard.open_run(dashboard.server.execute(sandbox.ssh_string, graph, workflow_name=LONG))
    dashboard.until_chip("Completed")
    dashboard.page.get_by_text("Graph and inputs").click()
    dashboard.page.locator("details.graph dl").first.wait_for()


def failed_run(dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path) -> None:
    dashboard.open_run(dashboard.server.execute(sandbox.ssh_string, failing(LONG), workflow_name=LONG))
    dashboard.until_chip("Failed")


def start(dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path) -> None:
    graph = workflows.titled(workflows.text_to_image(steps=0) | {"10": loaded(f"{LONG}.png")["1"]}, n3=LONG)
    graph["11"] = {"class_type": "PreviewImage", "inputs": {"images": ["10", 0]}}
    dashboard.open("start")
    dashboard.choose_workflow(workflows.saved(tmp_path / f"{LONG}.json", graph))
    dashboard.give_ssh(sandbox.ssh_string)
    dashboard.press("Check")
    dashboard.page.get_by_text("The instance cannot run this").wait_for()
    dashboard.page.get_by_text("Name, seeds, priority").click()


def instances(dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path) -> None:
    url = instances_url(dashboard.server)
    name = LONG[:60]
    instance = {"name": name, "ssh_connection": sandbox.ssh_string, "price_per_hour": 0.4, "tags": ["large"]}
    requests.post(url, json=instance, timeout=10).raise_for_status()
    requests.post(f"{url}/{name}/connect", timeout=10).raise_for_status()
    dashboard.open("instances")
    dashboard.page.locator(".chip", has_text="ready").wait_for()


@pytest.mark.parametrize("view", [home, live_run, finished_run, failed_run, start, instances])
def test_a_view_is_for_everybody(
    dashboard: Dashboard,
    sandbox: SandboxProcess,
    tmp_path: Path,
    view: Callable[[Dashboard, SandboxProcess, Path], None],
) -> None:
    page = dashboard.page
    view(dashboard, sandbox, tmp_path)
    assert unnamed(page) == []
    assert ids_used_twice(page) == []
    levels = headings(page)
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert faint_texts(page) == []
    assert too_wide(page) == []
    page.set_viewport_size(PHONE)
    assert too_wide(page) == []


def test_times_are_told_in_the_zone_of_the_reader(dashboard: Dashboard, sandbox: SandboxProcess) -> None:
    server = dashboard.server
    run_id = server.execute(sandbox.ssh_string, painted(), workflow_name="somewhere")
    ended = server.until_finished(run_id)["end_time"]
    told = []
    browser = dashboard.page.context.browser
    assert browser is not None
    for zone in ("Asia/Tokyo", "America/New_York"):
        context = browser.new_context(timezone_id=zone, locale="en-GB")
        page = context.new_page()
        watch = Watch(page)
        page.goto(f"{dashboard.root}/#/run/{run_id}")
        time = page.locator("header.head time")
        assert time.get_attribute("datetime") == ended
        told.append(time.text_content())
        watch.check()
        context.close()
    assert told[0] != told[1]
