"""A running workflow: its progress on the page, and its actions."""

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import expect

from tests.browser import workflows
from tests.browser.dashboard import Dashboard
from tests.integration.graphs import painted, slow
from tests.sandbox_process import SandboxProcess

LOOK_MS = 2_100
"""A little more than the polling interval of the page."""


READ_BARS = """() => {
    const nodes = [...document.querySelectorAll("li.node")];
    const sampler = nodes.find(node => node.textContent.includes("KSampler"));
    return {
        chip: document.querySelector("header.head .chip").textContent,
        overall: document.querySelector('progress[aria-label="Nodes completed"]')?.value,
        node: sampler?.querySelector("progress")?.value,
        steps: sampler?.querySelector(".line .quiet")?.textContent,
    };
}"""
"""Reads all values in one call, because the page may change at any time."""


def test_bars_only_grow_until_the_picture_is_there(dashboard: Dashboard, sandbox: SandboxProcess) -> None:
    page = dashboard.page
    page.clock.install()
    sandbox.faults(step_delay_s=0.25)
    run_id = dashboard.server.execute(
        sandbox.ssh_string, workflows.text_to_image(steps=12), workflow_name="moving"
    )
    dashboard.open_run(run_id)
    seen: list[tuple[float, float, str]] = []
    while (now := page.evaluate(READ_BARS))["chip"] != "Completed":
        if None not in now.values():
            seen.append((now["overall"], now["node"], now["steps"]))
        page.clock.run_for(LOOK_MS)
    overall, of_node, steps = (list(each) for each in zip(*seen, strict=True))
    assert overall == sorted(overall)
    assert of_node == sorted(of_node)
    assert len(set(overall)) > 3
    assert len(set(of_node)) > 3
    assert f"step {round(of_node[-1] * 12 / 100)} of 12" == steps[-1]
    expect(dashboard.node("VAE Decode")).to_have_attribute("data-status", "executed")
    expect(page.get_by_role("region", name="Duration of nodes").locator("li")).to_have_count(7)


def test_the_picture_as_it_is_now(dashboard: Dashboard, sandbox: SandboxProcess) -> None:
    page = dashboard.page
    sandbox.faults(step_delay_s=0.2)
    run_id = dashboard.server.execute(sandbox.ssh_string, workflows.text_to_image(steps=200))
    dashboard.open_run(run_id)
    preview = page.get_by_role("img", name="Live preview")
    assert preview.evaluate("async img => { await img.decode(); return img.naturalWidth; }") > 0
    first = preview.get_attribute("src")
    expect(preview).not_to_have_attribute("src", str(first))
    dashboard.open()
    card = dashboard.part("Now").locator("li.card")
    assert card.locator("img").evaluate("async img => { await img.decode(); return img.naturalWidth; }") > 0
    dashboard.server.post(f"/{run_id}/cancel")
    expect(card).to_have_count(0)


def test_how_long_it_should_take_is_told_once_that_is_known(
    dashboard: Dashboard, sandbox: SandboxProcess
) -> None:
    server = dashboard.server
    sandbox.faults(step_delay_s=0.5)
    pace = dashboard.page.get_by_role("region", name="Progress").locator(".line .quiet").first
    first = server.execute(sandbox.ssh_string, workflows.text_to_image(steps=11, seed=1))
    server.until_status(first, "executing")
    dashboard.open_run(first)
    expect(pace).to_have_text(re.compile(r"^[\d.]+ m?s$"))
    sandbox.faults(step_delay_s=0)
    dashboard.until_chip("Completed")
    sandbox.faults(step_delay_s=0.5)
    second = server.execute(sandbox.ssh_string, workflows.text_to_image(steps=11, seed=2))
    server.until_status(second, "executing")
    dashboard.open_run(second)
    expect(pace).to_have_text(re.compile(r"^[\d.]+ m?s of about [\d.]+ m?s$"))


def test_a_run_behind_another_says_how_many_are_ahead(dashboard: Dashboard, sandbox: SandboxProcess) -> None:
    sandbox.faults(hold=True)
    server = dashboard.server
    first = server.execute(sandbox.ssh_string, painted(1, prefix="first"), workflow_name="the first")
    server.until(first, lambda run: run["queue_position"] == 0)
    second = server.execute(sandbox.ssh_string, painted(2, prefix="second"), workflow_name="the second")
    server.until(second, lambda run: run["queue_position"] == 1)
    dashboard.open_run(second)
    expect(dashboard.page.get_by_role("region", name="Progress")).to_contain_text("1 ahead in the queue")
    dashboard.open_run(first)
    expect(dashboard.page.get_by_role("region", name="Progress")).to_contain_text("Next in the queue")
    dashboard.open()
    expect(dashboard.part("Now")).to_contain_text("2 runs wait")
    sandbox.faults(hold=False)
    dashboard.open_run(second)
    dashboard.until_chip("Completed")


def test_cancelling_asks_first(dashboard: Dashboard, sandbox: SandboxProcess) -> None:
    page = dashboard.page
    server = dashboard.server
    run_id = server.execute(sandbox.ssh_string, slow(steps=600), workflow_name="too long")
    server.until_status(run_id, "executing")
    dashboard.open_run(run_id)
    dashboard.press("Cancel")
    question = page.get_by_role("dialog", name="Cancel “too long”?")
    question.get_by_role("button", name="No").click()
    expect(question).to_be_hidden()
    dashboard.press("Cancel")
    page.keyboard.press("Escape")
    expect(question).to_be_hidden()
    assert not server.progress(run_id)["cancel_requested"]
    dashboard.press("Cancel")
    question.get_by_role("button", name="Cancel the run").click()
    dashboard.until_chip("Cancelled")
    assert server.progress(run_id)["status"] == "cancelled"
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_have_count(0)


def test_a_failed_run_is_taken_up_again(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    """The run fails because its output directory is a file."""
    server = dashboard.server
    server.output_dir = tmp_path / "elsewhere"
    sandbox.faults(hold=True)
    run_id = server.execute(sandbox.ssh_string, painted(7))
    server.output_dir.write_text("in the way")
    sandbox.faults(hold=False)
    dashboard.open_run(run_id)
    dashboard.until_chip("Failed")
    expect(dashboard.page.get_by_role("region", name="What went wrong")).to_contain_text("out_00001_.png")
    server.output_dir.unlink()
    dashboard.press("Retry")
    dashboard.until_chip("Completed")
    expect(dashboard.page.locator("ul.gallery img")).to_have_count(1)
    assert len(sandbox.executions()) == 1


def test_run_again_with_changes_begins_with_what_was(dashboard: Dashboard, sandbox: SandboxProcess) -> None:
    page = dashboard.page
    graph: dict[str, Any] = workflows.text_to_image(steps=2)
    run_id = dashboard.server.execute(
        sandbox.ssh_string, graph, workflow_name="before", inputs={"6.text": "a tower"}, priority=3
    )
    dashboard.server.until_finished(run_id)
    dashboard.open_run(run_id)
    page.get_by_role("link", name="Run again with changes").click()
    prompt = page.get_by_role("group", name="Prompt CLIPTextEncode", exact=True).get_by_label("text")
    expect(prompt).to_have_value("a tower")
    expect(page.get_by_label("ssh string")).to_have_value(sandbox.ssh_string)
    prompt.fill("two towers")
    dashboard.press("Start")
    page.wait_for_url(lambda url: "#/run/" in url and run_id not in url)
    dashboard.until_chip("Completed")
    expect(page.locator("h1")).to_have_text("before")
    again = dashboard.server.get(f"/{dashboard.run_id}/request")
    assert again["graph"]["6"]["inputs"]["text"] == "two towers"
    assert again["graph"]["3"]["inputs"]["steps"] == 2
    assert again["request"]["priority"] == 3


def test_of_many_nodes_those_that_matter_are_seen(dashboard: Dashboard, sandbox: SandboxProcess) -> None:
    graph = painted()
    save = graph.pop("3")
    for number in range(10, 50):
        graph[str(number)] = {"class_type": "ImageInvert", "inputs": {"image": [str(number - 1), 0]}}
    graph["10"]["inputs"]["image"] = save["inputs"]["images"]
    graph["50"] = {**save, "inputs": {**save["inputs"], "images": ["49", 0]}}
    sandbox.faults(step_delay_s=0.5)
    run_id = dashboard.server.execute(sandbox.ssh_string, graph)
    dashboard.open_run(run_id)
    nodes = dashboard.part("Nodes")
    expect(nodes.locator("li.node:visible")).to_have_count(1)
    expect(nodes.locator("li.node:visible")).to_have_attribute("aria-current", "step")
    expect(nodes).to_contain_text("nodes waiting")
    sandbox.faults(step_delay_s=0)
    dashboard.until_chip("Completed")
    expect(nodes).to_contain_text("43 nodes done")
    nodes.get_by_text("43 nodes done").click()
    expect(nodes.locator("li.node:visible")).to_have_count(43)
    timeline = dashboard.page.get_by_role("region", name="Duration of nodes")
    expect(timeline.locator("li")).to_have_count(12)
    expect(timeline).to_contain_text("31 other nodes, together")
