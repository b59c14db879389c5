"""A failed run: its node, its reason, and the notice on the start page."""

from playwright.sync_api import expect

from tests.browser import workflows
from tests.browser.dashboard import Dashboard
from tests.integration.graphs import failing, painted
from tests.sandbox_process import SandboxProcess


def test_what_a_node_raised_is_told_at_that_node(dashboard: Dashboard, sandbox: SandboxProcess) -> None:
    page = dashboard.page
    sandbox.faults(hold=True)
    graph = workflows.titled(failing("out of ideas"), n1="The paper", n2="The brush")
    run_id = dashboard.server.execute(sandbox.ssh_string, graph, workflow_name="broken brush")
    dashboard.open_run(run_id)
    dashboard.until_chip("Waiting")
    sandbox.faults(hold=False)
    dashboard.until_chip("Failed")
    expect(page.locator("#said")).to_have_text("broken brush: Failed")
    expect(dashboard.node("The brush")).to_have_attribute("data-status", "failed")
    expect(dashboard.node("The brush").locator(".problem")).to_contain_text("out of ideas")
    expect(dashboard.node("The paper").locator(".problem")).to_have_count(0)
    expect(dashboard.node("SaveImage")).to_contain_text("Not run")
    expect(page.get_by_role("region", name="What went wrong")).to_contain_text("out of ideas")
    expect(page.get_by_role("button", name="Retry")).to_have_count(0)
    expect(page.get_by_role("link", name="Run again with changes")).to_be_visible()


def test_a_failed_run_needs_the_reader_until_it_is_seen(
    dashboard: Dashboard, sandbox: SandboxProcess
) -> None:
    page = dashboard.page
    server = dashboard.server
    first, second = (
        server.execute(sandbox.ssh_string, failing(name), workflow_name=name) for name in ("first", "second")
    )
    for run_id in (first, second):
        server.until_finished(run_id)
    dashboard.open()
    needs = dashboard.part("Needs attention")
    expect(needs.get_by_role("link", name="first")).to_have_attribute("href", f"#/run/{first}")
    expect(needs.locator("li").filter(has_text="second")).to_contain_text("SandboxRaise")
    needs.get_by_role("button", name="Seen").click()
    expect(needs).to_have_count(0)
    page.reload()
    dashboard.row("second").wait_for()
    expect(needs).to_have_count(0)
    server.until_finished(server.execute(sandbox.ssh_string, failing("third"), workflow_name="third"))
    expect(needs.locator("li")).to_have_count(1)
    expect(needs.locator("li")).to_contain_text("third")


def test_what_the_instance_refuses_is_told_and_needs_no_node(
    dashboard: Dashboard, sandbox: SandboxProcess
) -> None:
    graph = painted()
    graph["2"]["class_type"] = "NodeOfNobody"
    dashboard.open_run(dashboard.server.execute(sandbox.ssh_string, graph))
    dashboard.until_chip("Failed")
    trouble = dashboard.page.get_by_role("region", name="What went wrong")
    expect(trouble).to_contain_text("NodeOfNobody")
    expect(dashboard.page.get_by_text("The run made no outputs.")).to_be_visible()
