"""Back, Forward and links between views restore the scroll position and the content."""

import re
from pathlib import Path

import requests
from playwright.sync_api import Page, expect

from tests.browser import workflows
from tests.browser.conftest import instances_url
from tests.browser.dashboard import Dashboard
from tests.integration.graphs import painted, slow
from tests.sandbox_process import SandboxProcess


def scrolled(page: Page) -> int:
    return round(page.evaluate("scrollY"))


def test_back_leads_to_where_one_was(filled: Dashboard) -> None:
    page = filled.page
    link = page.get_by_role("link", name="run 42")
    link.scroll_into_view_if_needed()
    before = scrolled(page)
    assert before > 100
    link.click()
    expect(page.locator("h1")).to_have_text("run 42")
    assert scrolled(page) == 0
    page.go_back()
    filled.row("run 42").wait_for()
    page.wait_for_function("before => Math.abs(scrollY - before) < 3", arg=before)
    page.reload()
    filled.row("run 42").wait_for()
    page.wait_for_function("before => Math.abs(scrollY - before) < 3", arg=before)


def test_older_runs_are_read_from_their_top(filled: Dashboard) -> None:
    page = filled.page
    page.get_by_role("link", name="Older").click()
    filled.row("run 39").wait_for()
    expect(page.get_by_role("heading", name="All runs")).to_be_in_viewport()
    expect(filled.row("run 39")).to_be_in_viewport()


def test_a_name_that_was_typed_and_not_sent_holds_nobody(filled: Dashboard) -> None:
    page = filled.page
    page.get_by_role("link", name="Instances", exact=True).click()
    page.get_by_role("heading", name="Instances").wait_for()
    page.get_by_role("link", name="Runs", exact=True).click()
    page.get_by_role("searchbox", name="Name").press_sequentially("run 4")
    page.go_back()
    page.get_by_role("heading", name="Instances").wait_for()
    page.wait_for_timeout(300)  # for late events
    assert page.url.endswith("#/instances")


def test_the_name_that_is_looked_for_is_that_of_the_address(filled: Dashboard) -> None:
    page = filled.page
    search = page.get_by_role("searchbox", name="Name")
    search.fill("run 4")
    search.press("Enter")
    expect(filled.row("run 69")).to_have_count(0)
    search.focus()
    page.go_back()
    filled.row("run 69").wait_for()
    expect(search).to_have_value("")
    page.go_forward()
    expect(search).to_have_value("run 4")
    expect(filled.row("run 69")).to_have_count(0)


def test_back_closes_the_large_picture_and_no_more(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    page = dashboard.page
    run_id = dashboard.start(workflows.saved(tmp_path / "w.json", painted()), sandbox.ssh_string)
    dashboard.until_chip("Completed")
    viewer = page.get_by_role("dialog", name="Picture")
    for close in (page.go_back, lambda: page.keyboard.press("Escape")):
        page.locator("a.picture").click()
        expect(viewer).to_be_visible()
        close()
        expect(viewer).to_be_hidden()
        page.wait_for_function("() => !history.state?.isEnlarged")
        assert page.url.endswith(run_id)
    page.go_back()
    page.wait_for_url("**/#/start")


def test_a_question_does_not_outlive_its_view(dashboard: Dashboard, sandbox: SandboxProcess) -> None:
    page = dashboard.page
    run_id = dashboard.server.execute(sandbox.ssh_string, slow(steps=600), workflow_name="long")
    dashboard.server.until_status(run_id, "executing")
    dashboard.open()
    dashboard.open_run(run_id)
    dashboard.press("Cancel")
    expect(page.locator("#question")).to_be_visible()
    page.go_back()
    expect(page.locator("#question")).to_be_hidden()
    assert not dashboard.server.progress(run_id)["cancel_requested"]


def test_an_open_batch_stays_open_and_all_its_runs_can_be_seen(
    dashboard: Dashboard, sandbox: SandboxProcess
) -> None:
    page = dashboard.page
    sandbox.faults(hold=True)
    order = {
        "ssh_connection": sandbox.ssh_string,
        "workflow": painted(),
        "matrix": {"1.color": list(range(60))},
        "batch_name": "Night of the lake",
    }
    answer = requests.post(f"{dashboard.server.url}/batch", json=order, timeout=20)
    answer.raise_for_status()
    dashboard.open()
    batch = page.locator("details.batch").filter(has_text="Night of the lake")
    batch.locator("summary").click()
    batch.get_by_role("link", name=re.compile(" 60$")).click()
    page.locator("h1").wait_for()
    page.go_back()
    expect(batch.get_by_text("The newest 50 of 60.")).to_be_visible()
    batch.get_by_role("link", name="Show all").click()
    expect(page.get_by_role("heading", name="Runs of Night of the lake")).to_be_visible()
    expect(dashboard.part("Runs of Night of the lake · all runs")).to_contain_text("60 runs")
    dashboard.open("?name=of+the+lake")
    expect(dashboard.part("All runs")).to_contain_text("60 runs")
    requests.post(f"{dashboard.server.url}/batch/{answer.json()['batch_id']}/cancel", timeout=30)
    sandbox.faults(hold=False)


def test_a_run_that_fails_after_another_was_seen_needs_the_reader(
    dashboard: Dashboard, sandbox: SandboxProcess
) -> None:
    """The order of the ends counts, not the order of the starts."""
    server = dashboard.server
    sandbox.faults(hold=True)
    later = server.execute(sandbox.ssh_string, painted(901), workflow_name="fails later")
    server.until(later, lambda run: run["queue_position"] == 0)
    server.until_finished(server.execute("root@127.0.0.1:1", painted(), workflow_name="fails at once"))
    dashboard.open()
    needs = dashboard.part("Needs attention")
    expect(needs).to_contain_text("fails at once")
    needs.get_by_role("button", name="Seen").click()
    expect(needs).to_have_count(0)
    sandbox.faults(hold=False, fail_class={"EmptyImage": "It broke."})
    server.until_finished(later)
    expect(needs).to_contain_text("fails later")
    expect(needs).not_to_contain_text("fails at once")


def test_a_form_that_is_sent_twice_is_sent_once(dashboard: Dashboard) -> None:
    page = dashboard.page
    dashboard.open("instances")
    page.get_by_label("Name", exact=True).fill("Twice")
    page.get_by_label("ssh string from your provider").fill("root@192.0.2.1")
    page.get_by_role("button", name="Add", exact=True).dblclick()
    expect(page.get_by_role("heading", name="Twice")).to_be_visible()
    expect(page.locator("#said")).to_have_text("Twice is added.")
    names = [
        each["name"] for each in requests.get(instances_url(dashboard.server), timeout=20).json()["instances"]
    ]
    assert names.count("Twice") == 1
