"""Named instances: add, connect, accept the host key, remove."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.dashboard import Dashboard
from tests.integration.graphs import painted, slow
from tests.sandbox_process import SandboxProcess


@pytest.fixture
def machines(dashboard: Dashboard) -> Dashboard:
    """The view of instances; no instance exists yet."""
    dashboard.open("instances")
    dashboard.page.get_by_text("No instances yet.").wait_for()
    return dashboard


@pytest.fixture
def renewed(tmp_path: Path) -> Iterator[SandboxProcess]:
    """A sandbox for this test only, because its host key changes."""
    with SandboxProcess(tmp_path / "renewed") as sandbox:
        yield sandbox


def add(dashboard: Dashboard, name: str, ssh_string: str, **others: str) -> Locator:
    """Adds an instance on the page; returns its card."""
    form = dashboard.page.locator("form.add")
    form.get_by_label("Name").fill(name)
    form.get_by_label("ssh string").fill(ssh_string)
    for label, value in others.items():
        form.get_by_label(label.replace("_", " ")).fill(value)
    form.get_by_role("button", name="Add").click()
    return dashboard.page.locator("li.instance").filter(
        has=dashboard.page.get_by_role("heading", name=name, exact=True)
    )


def test_an_instance_is_added_connected_and_removed(machines: Dashboard, sandbox: SandboxProcess) -> None:
    page = machines.page
    card = add(machines, "Rented", sandbox.ssh_string, Price_per_hour="0.5")
    expect(card.locator(".chip")).to_have_text("not connected")
    expect(card).to_contain_text("0.50 per hour")
    expect(page.locator("form.add").get_by_label("Name")).to_have_value("")
    card.get_by_role("button", name="Connect").click()
    expect(card.locator(".chip")).to_have_text("ready")
    expect(card).to_contain_text("VRAM")
    expect(card.locator("dl")).to_contain_text("empty")
    card.get_by_role("button", name="Remove").click()
    question = page.get_by_role("dialog", name="Remove “Rented” from the list?")
    question.get_by_role("button", name="No").click()
    expect(card).to_be_visible()
    card.get_by_role("button", name="Disconnect").click()
    expect(card.get_by_role("button", name="Connect", exact=True)).to_be_visible()
    card.get_by_role("button", name="Remove").click()
    question.get_by_role("button", name="Remove").click()
    expect(card).to_have_count(0)
    assert machines.server.get("/../instances")["instances"] == []


def test_what_it_does_is_seen_and_what_it_has_done(machines: Dashboard, sandbox: SandboxProcess) -> None:
    card = add(machines, "Busy", sandbox.ssh_string)
    expect(card).to_be_visible()
    run_id = machines.server.execute("Busy", slow(steps=600), workflow_name="long")
    expect(card.locator("dl")).to_contain_text("1 running")
    machines.server.post(f"/{run_id}/cancel")
    expect(card.locator("dl")).to_contain_text("empty")
    card.get_by_role("link", name="1 run").click()
    machines.row("long").wait_for()
    expect(machines.page.get_by_role("combobox", name="Instance")).to_have_value("busy")


def test_a_run_starts_at_an_instance_by_its_name(machines: Dashboard, sandbox: SandboxProcess) -> None:
    expect(add(machines, "By name", sandbox.ssh_string)).to_be_visible()
    first = machines.server.execute("By name", slow(steps=1), workflow_name="w")
    machines.server.until_finished(first)
    machines.open(f"start?from={first}")
    expect(machines.page.get_by_label("Instance")).to_have_value("By name")
    expect(machines.page.get_by_text("The instance can run this.")).to_be_visible()
    machines.press("Start")
    machines.until_chip("Completed")
    expect(machines.page.locator("header.head")).to_contain_text("By name")


@pytest.mark.parametrize(
    ("name", "ssh_string", "sentence"),
    [("a/b", "ssh root@127.0.0.1", "name"), ("ok", "ssh -o ProxyCommand=id root@127.0.0.1", "ProxyCommand")],
)
def test_what_is_no_instance_is_refused_and_can_be_corrected(
    machines: Dashboard, name: str, ssh_string: str, sentence: str
) -> None:
    machines.watch.allow_status(400, "/comfyui/instances")
    card = add(machines, name, ssh_string)
    expect(machines.page.locator("#said")).to_contain_text(sentence)
    expect(card).to_have_count(0)
    expect(machines.page.locator("form.add").get_by_label("Name")).to_have_value(name)


def test_an_instance_that_cannot_be_reached_says_why(machines: Dashboard, sandbox: SandboxProcess) -> None:
    card = add(machines, "Gone", sandbox.ssh_string.replace(f"-p {sandbox.ssh_port}", "-p 1"))
    card.get_by_role("button", name="Connect").click()
    expect(card.locator(".problem")).to_contain_text("127.0.0.1")
    expect(card.locator(".chip")).to_have_text("not reachable")


def show_another_host_key(sandbox: SandboxProcess) -> None:
    """Changes the host key, like a new machine at the same address."""
    sandbox.kill()
    (sandbox.layout.ssh_dir / "host_key").unlink()
    sandbox.start()


def test_another_host_key_is_compared_and_accepted(machines: Dashboard, renewed: SandboxProcess) -> None:
    page = machines.page
    card = add(machines, "Renewed", renewed.ssh_string)
    card.get_by_role("button", name="Connect").click()
    expect(card.locator(".chip")).to_have_text("ready")
    known = machines.server.get("/../instances/renewed")["instance"]["state"]["host_key_fingerprint"]
    show_another_host_key(renewed)
    keys = card.locator("dl.keys dd")
    expect(keys.first).to_have_text(known)
    offered = keys.last.text_content() or ""
    assert offered.startswith("SHA256:")
    assert offered != known
    expect(card.get_by_role("button", name="Forget the known one")).to_be_visible()
    machines.open()
    expect(machines.part("Needs attention")).to_contain_text("Renewed has another host key")
    machines.part("Needs attention").get_by_role("link", name="Renewed").click()
    card.get_by_role("button", name="Accept the new key").click()
    question = page.get_by_role("dialog", name="Trust this machine as “Renewed”?")
    expect(question.locator("p")).to_have_text(offered)
    question.get_by_role("button", name="No").click()
    expect(keys.first).to_be_visible()
    card.get_by_role("button", name="Accept the new key").click()
    question.get_by_role("button", name="Accept the key").click()
    expect(card.locator(".chip")).to_have_text("ready")
    expect(keys).to_have_count(0)
    now = machines.server.get("/../instances/renewed")["instance"]["state"]
    assert now["host_key_fingerprint"] == offered


def test_a_machine_without_a_name_gets_one_to_have_its_keys_compared(
    machines: Dashboard, renewed: SandboxProcess
) -> None:
    server, page = machines.server, machines.page
    server.until_finished(server.execute(renewed.ssh_string, painted()))
    show_another_host_key(renewed)
    refused = server.execute(renewed.ssh_string, painted())
    assert server.until_finished(refused)["error_code"] == "host_key_refused"
    machines.open_run(refused)
    page.get_by_role("link", name="Give the machine a name").click()
    card = add(machines, "Named", renewed.ssh_string)
    card.get_by_role("button", name="Connect").click()
    card.get_by_role("button", name="Accept the new key").click()
    page.get_by_role("button", name="Accept the key").click()
    expect(card.locator(".chip")).to_have_text("ready")
    machines.open_run(refused)
    machines.press("Retry")
    machines.until_chip("Completed")
