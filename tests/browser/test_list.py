"""The list of runs: filters by name, status and instance, pages, and batches as rows that expand."""

from collections.abc import Callable
from pathlib import Path

import requests
from playwright.sync_api import Locator, expect

from tests.browser.conftest import RECORDED, instances_url
from tests.browser.dashboard import Dashboard
from tests.integration.graphs import failing, node, painted
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess

ON_A_PAGE = 30


def rows(dashboard: Dashboard) -> Locator:
    return dashboard.part("All runs").locator("li.row")


def names(dashboard: Dashboard) -> list[str]:
    return rows(dashboard).locator(".name").all_text_contents()


def test_pages_lead_to_the_oldest_and_back(filled: Dashboard) -> None:
    page = filled.page
    expect(filled.part("All runs")).to_contain_text("70 runs")
    assert names(filled) == [f"run {number:02}" for number in range(69, 39, -1)]
    page.get_by_role("link", name="Older").click()
    filled.row("run 39").wait_for()
    assert names(filled) == [f"run {number:02}" for number in range(39, 9, -1)]
    page.get_by_role("link", name="Older").click()
    filled.row("run 00").wait_for()
    expect(rows(filled)).to_have_count(RECORDED - 2 * ON_A_PAGE)
    expect(page.get_by_role("link", name="Older")).to_have_count(0)
    page.go_back()
    filled.row("run 39").wait_for()
    page.reload()
    filled.row("run 39").wait_for()
    page.get_by_role("link", name="Newest").click()
    filled.row("run 69").wait_for()


def test_runs_are_found_by_state_and_name(filled: Dashboard) -> None:
    page = filled.page
    page.get_by_role("combobox", name="State").select_option("failed")
    expect(rows(filled)).to_have_count(RECORDED // 10)
    assert names(filled)[0] == "run 60"
    search = page.get_by_role("searchbox", name="Name")
    search.fill("3")
    search.press("Enter")
    expect(rows(filled)).to_have_count(1)
    assert names(filled) == ["run 30"]
    page.reload()
    expect(rows(filled)).to_have_count(1)
    expect(search).to_have_value("3")
    expect(page.get_by_role("combobox", name="State")).to_have_value("failed")
    search.fill("nothing like it")
    search.press("Enter")
    expect(filled.part("All runs")).to_contain_text("No run matches the filters.")
    page.get_by_role("link", name="Runs", exact=True).click()
    expect(rows(filled)).to_have_count(ON_A_PAGE)
    expect(search).to_have_value("")
    expect(page.get_by_role("combobox", name="State")).to_have_value("")
    page.go_back()
    expect(rows(filled)).to_have_count(0)
    expect(search).to_have_value("nothing like it")
    expect(page.get_by_role("combobox", name="State")).to_have_value("failed")


def test_pages_of_what_was_found(filled: Dashboard) -> None:
    filled.page.get_by_role("combobox", name="State").select_option("completed")
    expect(filled.part("All runs")).to_contain_text("63 runs")
    filled.page.get_by_role("link", name="Older").click()
    filled.row("run 31").wait_for()
    assert "run 30" not in names(filled)
    state = filled.page.get_by_role("combobox", name="State")
    expect(state).to_have_value("completed")
    filled.page.get_by_role("link", name="Runs", exact=True).click()
    filled.row("run 60").wait_for()
    expect(state).to_have_value("")


def test_the_latest_pictures_lead_to_their_runs(filled: Dashboard) -> None:
    first = filled.part("Latest pictures").get_by_role("link").first
    assert (
        first.locator("img").evaluate("async img => { await img.decode(); return img.naturalWidth; }") == 60
    )
    first.click()
    expect(filled.page.locator("h1")).to_have_text("run 66")


def test_runs_of_an_instance(dashboard: Dashboard, sandbox: SandboxProcess) -> None:
    server = dashboard.server
    instance = {"name": "The one", "ssh_connection": sandbox.ssh_string}
    requests.post(instances_url(server), json=instance, timeout=10).raise_for_status()
    by_name = server.execute("The one", painted(), workflow_name="by name")
    by_ssh = server.execute("ssh -p 1 root@127.0.0.1", painted(), workflow_name="by ssh string")
    for run_id in (by_name, by_ssh):
        server.until_finished(run_id)
    dashboard.open()
    dashboard.row("by ssh string").wait_for()
    dashboard.page.get_by_role("combobox", name="Instance").select_option("The one")
    expect(dashboard.row("by ssh string")).to_have_count(0)
    assert names(dashboard) == ["by name"]


def test_a_notice_about_the_results_is_in_the_list_and_in_the_run(
    dashboard: Dashboard, sandbox: SandboxProcess
) -> None:
    server = dashboard.server
    graph = {"1": painted()["1"], "2": node("PreviewImage", images=["1", 0])}
    run = server.execute(sandbox.ssh_string, graph, workflow_name="only shown")
    server.until_finished(run)
    sentence = "The workflow saves no file, so its previews were fetched"
    dashboard.open()
    expect(dashboard.row("only shown")).to_contain_text(sentence)
    dashboard.open_run(run)
    expect(dashboard.part("Notes")).to_contain_text(sentence)


def test_a_batch_is_one_row_that_opens(dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path) -> None:
    page = dashboard.page
    server = dashboard.server
    sandbox.faults(hold=True)
    body = {"ssh_connection": sandbox.ssh_string, "workflow": painted(), "batch_name": "colours"}
    body |= {"rows": [{"1.color": color} for color in range(3)], "output_dir": str(tmp_path / "out")}
    batch_id = server.post("/batch", body).json()["batch_id"]
    dashboard.open()
    batch = dashboard.part("All runs").locator("details.batch", has_text="colours")
    expect(batch.locator("summary")).to_contain_text("0 of 3 runs")
    expect(batch.locator("li.row")).to_have_count(0)
    batch.locator("summary .name").click()
    expect(batch.locator("li.row")).to_have_count(3)
    sandbox.faults(hold=False)
    expect(batch.locator("summary")).to_contain_text("3 of 3 runs")
    expect(batch.locator("summary .chip")).to_have_text("Completed")
    expect(batch.locator("li.row .chip", has_text="Completed")).to_have_count(3)
    assert batch.evaluate("part => part.open"), "it was closed while it was looked at"
    with page.expect_download() as everything:
        batch.get_by_role("link", name="Download all").click()
    assert everything.value.suggested_filename == "colours.zip"
    batch.locator("li.row a.name").first.click()
    assert server.progress(dashboard.run_id)["batch_id"] == batch_id


def test_the_rest_of_a_batch_is_cancelled(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    sandbox.faults(hold=True)
    body = {"ssh_connection": sandbox.ssh_string, "workflow": painted(), "batch_name": "too many"}
    body |= {"rows": [{"1.color": color} for color in range(3)], "output_dir": str(tmp_path / "out")}
    batch_id = dashboard.server.post("/batch", body).json()["batch_id"]
    dashboard.open()
    batch = dashboard.part("All runs").locator("details.batch", has_text="too many")
    batch.locator("summary .name").click()
    batch.get_by_role("button", name="Cancel the rest").click()
    question = dashboard.page.get_by_role("dialog", name="Cancel the rest of “too many”?")
    question.get_by_role("button", name="Cancel the rest").click()
    expect(batch.locator("summary .chip")).to_have_text("Cancelled")
    expect(batch.get_by_role("button", name="Cancel the rest")).to_have_count(0)
    counts = dashboard.server.get(f"/batch/{batch_id}/progress")["progress"]["counts"]
    assert counts["cancelled"] == 3


def test_only_a_batch_that_can_be_retried_offers_it(
    make_dashboard: Callable[[ServerProcess], Dashboard],
    make_server: Callable[..., ServerProcess],
    sandbox: SandboxProcess,
    tmp_path: Path,
) -> None:
    """A broken node fails again; an instance that could not be reached may be back."""
    server = make_server(contact_patience_s=0)
    dashboard = make_dashboard(server)
    common = {"ssh_connection": sandbox.ssh_string, "output_dir": str(tmp_path / "out"), "rows": [{}, {}]}
    sandbox.faults(refuse_ssh_s=600)
    away = server.post("/batch", {**common, "workflow": painted(), "batch_name": "away"}).json()
    for run_id in away["workflow_ids"]:
        server.until_finished(run_id)
    sandbox.reset()
    broken = server.post("/batch", {**common, "workflow": failing("x"), "batch_name": "broken"}).json()
    for run_id in broken["workflow_ids"]:
        server.until_finished(run_id)

    dashboard.open()
    batches = dashboard.part("All runs").locator("details.batch")
    for name in ("away", "broken"):
        batches.filter(has_text=name).locator("summary .name").click()
        expect(batches.filter(has_text=name).locator("li.row .chip", has_text="Failed")).to_have_count(2)
    retry = batches.get_by_role("button", name="Retry failed runs")
    expect(retry).to_have_count(1)
    batches.filter(has_text="away").get_by_role("button", name="Retry failed runs").click()
    expect(batches.filter(has_text="away").locator("summary .chip")).to_have_text("Completed")
    expect(retry).to_have_count(0)
