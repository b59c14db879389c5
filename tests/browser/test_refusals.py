"""Refused runs: the reason is shown next to the field that the user can change."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests.browser import workflows
from tests.browser.dashboard import Dashboard
from tests.integration.graphs import loaded, node, painted
from tests.sandbox_process import SandboxProcess


def said(dashboard: Dashboard) -> Locator:
    """Returns the status line of the form."""
    return dashboard.page.locator(".footer [role=status]")


def test_what_the_instance_has_not_got_is_told_at_its_node(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    page = dashboard.page
    graph = workflows.text_to_image(steps=0)
    graph["4"]["inputs"]["ckpt_name"] = "another.safetensors"
    graph["6"] = node("TextOfNobody", text="a lake")
    dashboard.open("start")
    dashboard.choose_workflow(workflows.saved(tmp_path / "w.json", graph))
    dashboard.give_ssh(sandbox.ssh_string)
    dashboard.press("Check")
    expect(said(dashboard)).to_contain_text("The instance cannot run this: ")
    sampler = page.get_by_role("group", name="KSampler", exact=True)
    expect(sampler.locator(".problem[data-severity=error]")).to_contain_text("steps")
    expect(sampler.get_by_label("steps")).to_have_attribute("aria-invalid", "true")
    expect(sampler.get_by_label("cfg")).not_to_have_attribute("aria-invalid", "true")
    loader = page.get_by_role("group", name="Load Checkpoint CheckpointLoaderSimple")
    expect(loader.locator(".problem")).to_contain_text(workflows.CHECKPOINT)
    expect(page.get_by_role("group", name="TextOfNobody").locator(".problem")).to_contain_text("TextOfNobody")

    loader.get_by_label("ckpt_name").select_option(workflows.CHECKPOINT)
    sampler.get_by_label("steps").fill("2")
    dashboard.press("Check")
    expect(said(dashboard)).to_contain_text("1 error.")
    expect(page.locator("[aria-invalid=true]")).to_have_count(0)
    assert sandbox.executions() == []


def test_a_picture_that_is_missing_is_told_at_the_node_that_loads_it(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    dashboard.open("start")
    dashboard.choose_workflow(workflows.saved(tmp_path / "w.json", loaded("nowhere.png")))
    dashboard.give_ssh(sandbox.ssh_string)
    dashboard.press("Check")
    files = dashboard.part("Input files")
    expect(files.locator("li .problem")).to_contain_text("nowhere.png")
    files.locator("li input[type=file]").set_input_files(workflows.picture(tmp_path / "here.png"))
    expect(files.get_by_role("img", name="here.png")).to_be_visible()
    dashboard.press("Check")
    expect(said(dashboard)).to_have_text("The instance can run this.")
    expect(files.locator(".problem")).to_have_count(0)


def test_what_belongs_to_no_input_is_told_under_the_name_of_its_node(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    graph = workflows.titled(painted(), n2="Turned around")
    del graph["2"]["inputs"]["image"]
    dashboard.open("start")
    dashboard.choose_workflow(workflows.saved(tmp_path / "w.json", graph))
    dashboard.give_ssh(sandbox.ssh_string)
    dashboard.press("Check")
    group = (
        dashboard.part("Inputs")
        .locator(".group")
        .filter(has=dashboard.page.get_by_role("heading", name="Turned around"))
    )
    expect(group.locator(".problem")).to_contain_text("image")


@pytest.mark.parametrize(
    ("ssh_string", "sentence"),
    [("telnet somewhere", "somewhere"), ("ssh -o ProxyCommand=id root@127.0.0.1", "ProxyCommand")],
)
def test_a_bad_ssh_string_starts_nothing(
    dashboard: Dashboard, tmp_path: Path, ssh_string: str, sentence: str
) -> None:
    dashboard.watch.allow_status(400, "/comfyui/workflow/execute")
    before = dashboard.server.get("")["total"]
    dashboard.open("start")
    dashboard.choose_workflow(workflows.saved(tmp_path / "w.json", painted()))
    dashboard.give_ssh(ssh_string)
    dashboard.press("Start")
    expect(said(dashboard)).to_have_attribute("data-tone", "bad")
    expect(said(dashboard)).to_contain_text(sentence)
    expect(dashboard.page.get_by_role("button", name="Start", exact=True)).to_be_enabled()
    assert dashboard.server.get("")["total"] == before


def test_an_instance_that_is_not_there_cannot_be_asked(dashboard: Dashboard, tmp_path: Path) -> None:
    dashboard.watch.allow_status(502, "/comfyui/workflow/validate")
    dashboard.open("start")
    dashboard.choose_workflow(workflows.saved(tmp_path / "w.json", painted()))
    dashboard.give_ssh("ssh -p 1 root@127.0.0.1")
    dashboard.press("Check")
    expect(said(dashboard)).to_have_attribute("data-tone", "bad")
    expect(said(dashboard)).to_contain_text("127.0.0.1")


def no_json(directory: Path) -> Path:
    path = directory / "broken.json"
    path.write_text('{"1": {')
    return path


def no_workflow(directory: Path) -> Path:
    return workflows.saved(directory / "list.json", {"a": [1, 2]})


def no_workflow_inside(directory: Path) -> Path:
    return workflows.picture(directory / "holiday.png")


def no_picture(directory: Path) -> Path:
    path = directory / "not really.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    return path


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (no_json, "JSON"),
        (no_workflow, "not a graph in API format"),
        (no_workflow_inside, "has no workflow inside"),
        (no_picture, "cannot be read"),
    ],
)
def test_a_file_that_is_no_workflow_is_told_and_another_can_be_chosen(
    dashboard: Dashboard, tmp_path: Path, make: Callable[[Path], Path], sentence: str
) -> None:
    dashboard.watch.allow_status(400, "/comfyui/workflow/inspect")
    dashboard.open("start")
    dashboard.part("Workflow").locator("input[type=file]").set_input_files(make(tmp_path))
    expect(said(dashboard)).to_have_attribute("data-tone", "bad")
    expect(said(dashboard)).to_contain_text(sentence)
    dashboard.choose_workflow(workflows.saved(tmp_path / "good.json", painted()))
    expect(dashboard.part("Workflow")).to_contain_text("good · 3 nodes")
    expect(said(dashboard)).not_to_have_attribute("data-tone", "bad")


def test_a_picture_that_no_node_loads_is_told(dashboard: Dashboard, tmp_path: Path) -> None:
    dashboard.open("start")
    dashboard.choose_workflow(workflows.saved(tmp_path / "w.json", loaded("a.png")))
    pictures = [workflows.picture(tmp_path / name) for name in ("a.png", "left_over.png")]
    dashboard.part("Input files").locator("input[multiple]").set_input_files(pictures)
    expect(said(dashboard)).to_have_text("The workflow has no free node for left_over.png.")
