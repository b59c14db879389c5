"""The prepared run: the page shows exactly what is run."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser import workflows
from tests.browser.conftest import instances_url
from tests.browser.dashboard import Dashboard
from tests.integration.graphs import loaded, painted
from tests.sandbox_process import SandboxProcess

HUGE_SEED = 12345678901234567890


def said(dashboard: Dashboard) -> Locator:
    return dashboard.page.locator(".footer [role=status]")


def steps(dashboard: Dashboard) -> Locator:
    return dashboard.page.get_by_label("steps", exact=True)


def sampler_of(dashboard: Dashboard) -> dict[str, Any]:
    """Returns the sampler inputs of the run whose view is open."""
    graph = dashboard.server.get(f"/{dashboard.run_id}/request")["graph"]
    found: dict[str, Any] = graph["3"]["inputs"]
    return found


def prepare(dashboard: Dashboard, sandbox: SandboxProcess, directory: Path, **sampler: object) -> None:
    dashboard.open("start")
    dashboard.choose_workflow(workflows.saved(directory / "lake.json", workflows.text_to_image(**sampler)))
    dashboard.give_ssh(sandbox.ssh_string)


def check(dashboard: Dashboard) -> None:
    dashboard.press("Check")
    expect(said(dashboard)).to_have_text("The instance can run this.")


class Held:
    """Delays a response until the test releases it."""

    def __init__(self, page: Page, address: str) -> None:
        self._routes: list[Route] = []
        self._page, self._address = page, address
        page.route(address, self._keep)

    def _keep(self, route: Route) -> None:
        self._routes.append(route)

    def release(self) -> None:
        for route in self._routes:
            route.continue_()
        self._page.unroute(self._address)


def test_what_is_typed_again_after_a_check_is_run(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    prepare(dashboard, sandbox, tmp_path, steps=5)
    steps(dashboard).fill("3")
    check(dashboard)
    steps(dashboard).fill("2")
    steps(dashboard).fill("3")
    dashboard.press("Start")
    dashboard.until_chip("Completed")
    assert sampler_of(dashboard)["steps"] == 3


def test_a_field_that_is_emptied_shows_what_will_be_run(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    prepare(dashboard, sandbox, tmp_path, steps=2)
    steps(dashboard).fill("")
    steps(dashboard).blur()
    expect(steps(dashboard)).to_have_value("2")
    dashboard.page.get_by_text("Name, seeds, priority").click()
    name = dashboard.page.get_by_label("Name of the run")
    name.press("End")
    for _ in "lake":
        name.press("Backspace")
    name.blur()
    expect(name).to_have_value("")
    expect(name).to_have_attribute("placeholder", "lake")
    dashboard.press("Start")
    expect(dashboard.page.locator("h1")).to_have_text("lake")


def test_drawn_seeds_are_not_shown_before_they_are_run(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    prepare(dashboard, sandbox, tmp_path, seed=20, steps=1)
    dashboard.page.get_by_text("Name, seeds, priority").click()
    dashboard.page.get_by_label("Seeds").select_option("new random seeds")
    check(dashboard)
    expect(dashboard.page.get_by_label("seed", exact=True)).to_have_value("20")
    dashboard.press("Start")
    dashboard.until_chip("Completed")
    assert sampler_of(dashboard)["seed"] != 20


def test_a_seed_is_never_shown_rounded(dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path) -> None:
    prepare(dashboard, sandbox, tmp_path, seed=HUGE_SEED, steps=1)
    dashboard.press("Start")
    dashboard.until_chip("Completed")
    dashboard.page.get_by_text("Graph and inputs").click()
    expect(dashboard.page.locator("details.graph").get_by_text(str(HUGE_SEED), exact=True)).to_be_visible()
    dashboard.page.get_by_role("link", name="Run again with changes").click()
    expect(dashboard.page.get_by_label("seed", exact=True)).to_have_value(str(HUGE_SEED))


def test_a_change_in_the_midst_of_a_check_is_not_checked(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    prepare(dashboard, sandbox, tmp_path)
    held = Held(dashboard.page, "**/validate")
    dashboard.press("Check")
    expect(said(dashboard)).to_contain_text("Checking")
    steps(dashboard).fill("-3")
    held.release()
    expect(said(dashboard)).to_have_text("Changed since the last check.")


def test_nothing_starts_while_a_file_is_on_its_way(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    page = dashboard.page
    dashboard.open("start")
    dashboard.choose_workflow(workflows.saved(tmp_path / "w.json", loaded("old.png")))
    dashboard.give_ssh(sandbox.ssh_string)
    held = Held(page, "**/files")
    slot = dashboard.part("Input files").locator("li")
    slot.locator("input[type=file]").set_input_files(workflows.picture(tmp_path / "red.png"))
    expect(said(dashboard)).to_have_text("Uploading red.png…")
    for name in ("Start", "Check"):
        expect(page.get_by_role("button", name=name, exact=True)).to_be_disabled()
    held.release()
    expect(slot.get_by_role("img", name="red.png")).to_be_visible()
    dashboard.press("Start")
    dashboard.until_chip("Completed")


def test_an_answer_that_is_lost_costs_no_second_run(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    page = dashboard.page
    prepare(dashboard, sandbox, tmp_path, steps=1)
    dashboard.watch.allow("Failed to load resource: net::ERR_FAILED", "/comfyui/workflow/execute")

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/execute", lose)
    dashboard.press("Start")
    expect(said(dashboard)).to_contain_text("may have started")
    page.unroute("**/execute")
    dashboard.press("Start")
    dashboard.until_chip("Completed")
    assert len(sandbox.executions()) == 1


def test_what_went_wrong_is_not_said_of_what_is_right_now(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    prepare(dashboard, sandbox, tmp_path)
    dashboard.watch.allow_status(400, "/comfyui/workflow/execute")
    dashboard.give_ssh("ssh -p nowhere")
    dashboard.press("Start")
    expect(said(dashboard)).to_have_attribute("data-tone", "bad")
    dashboard.give_ssh(sandbox.ssh_string)
    expect(said(dashboard)).to_contain_text("Check tests whether the instance")
    check(dashboard)


def test_an_instance_that_was_added_meanwhile_is_offered(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    prepare(dashboard, sandbox, tmp_path)
    instance = {"name": "Added", "ssh_connection": sandbox.ssh_string}
    requests.post(instances_url(dashboard.server), json=instance, timeout=10).raise_for_status()
    place = dashboard.page.get_by_role("combobox", name="Instance")
    expect(place.locator("option").filter(has_text="Added")).to_have_count(1)
    typed = dashboard.page.get_by_role("textbox", name="ssh string")
    expect(typed).to_have_value(sandbox.ssh_string)
    place.select_option(label="Any free instance")
    dashboard.press("Start")
    dashboard.until_chip("Completed")
    dashboard.open("start")
    expect(place).to_have_value("any")


def test_a_picture_takes_the_place_of_the_one_before(dashboard: Dashboard, tmp_path: Path) -> None:
    dashboard.open("start")
    dashboard.choose_workflow(workflows.saved(tmp_path / "w.json", loaded("old.png")))
    files = dashboard.part("Input files")
    for name in ("a.png", "b.png"):
        files.locator("input[multiple]").set_input_files(workflows.picture(tmp_path / name))
        expect(files.get_by_role("img", name=name)).to_be_visible()
    expect(files.get_by_role("img")).to_have_count(1)


def test_a_file_goes_to_a_node_that_loads_its_kind(dashboard: Dashboard, tmp_path: Path) -> None:
    graph = loaded("a.png") | {"9": {"class_type": "LoadVideo", "inputs": {"file": "a.mp4"}}}
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"\0" * 64)
    dashboard.open("start")
    dashboard.choose_workflow(workflows.saved(tmp_path / "w.json", graph))
    files = dashboard.part("Input files")
    files.locator("input[multiple]").set_input_files(clip)
    expect(files.locator("li").filter(has_text="LoadVideo")).to_contain_text("clip")
    expect(files.locator("li").filter(has_text="LoadImage")).to_contain_text("a.png (as in the workflow)")


def test_a_picture_that_was_replaced_is_not_sent_along(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    page = dashboard.page
    server = dashboard.server
    red = workflows.picture(tmp_path / "red.png")
    first = server.execute(sandbox.ssh_string, loaded("red.png"), input_images=[str(red)])
    server.until_finished(first)
    dashboard.open(f"start?from={first}")
    check(dashboard)
    slot = dashboard.part("Input files").locator("li")
    slot.locator("input[type=file]").set_input_files(workflows.picture(tmp_path / "blue.png", "blue"))
    expect(slot.get_by_role("img", name=re.compile("blue"))).to_be_visible()
    check(dashboard)
    dashboard.press("Start")
    page.wait_for_url(lambda url: "#/run/" in url and first not in url)
    dashboard.until_chip("Completed")
    images = server.get(f"/{dashboard.run_id}/request")["request"]["input_images"]
    assert [Path(image).name for image in images] == ["blue.png"]


def test_a_workflow_comes_with_its_pictures(dashboard: Dashboard, tmp_path: Path) -> None:
    dashboard.open("start")
    files = [workflows.picture(tmp_path / "p.png"), workflows.saved(tmp_path / "w.json", loaded("old.png"))]
    dashboard.part("Workflow").locator("input[type=file]").set_input_files(files)
    expect(dashboard.part("Workflow")).to_contain_text("w · 3 nodes")
    expect(dashboard.part("Input files").get_by_role("img", name="p.png")).to_be_visible()


def test_a_reload_loses_nothing_of_it(dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path) -> None:
    prepare(dashboard, sandbox, tmp_path, steps=9)
    steps(dashboard).fill("2")
    dashboard.page.reload()
    expect(steps(dashboard)).to_have_value("2")
    expect(dashboard.page.get_by_label("ssh string")).to_have_value(sandbox.ssh_string)
    dashboard.press("Start")
    dashboard.until_chip("Completed")
    assert sampler_of(dashboard)["steps"] == 2
    dashboard.page.reload()
    dashboard.open("start")
    expect(dashboard.part("Workflow")).to_contain_text("Drop a workflow here")


def test_a_run_that_is_not_there_cannot_be_run_again(dashboard: Dashboard) -> None:
    dashboard.watch.allow_status(404, "/comfyui/workflow/")
    dashboard.open("start?from=comfyui_workflow_1_1")
    expect(dashboard.page.locator("main")).to_contain_text("comfyui_workflow_1_1")
    dashboard.page.wait_for_timeout(2_500)  # until the next poll
    expect(dashboard.page.locator("main")).to_contain_text("comfyui_workflow_1_1")


@pytest.mark.parametrize("storage", ["localStorage", "sessionStorage"])
def test_a_browser_that_remembers_nothing(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path, storage: str
) -> None:
    dashboard.page.add_init_script(
        f"Object.defineProperty(window, {json.dumps(storage)}, {{ get() {{ throw new Error('denied'); }} }})"
    )
    dashboard.start(workflows.saved(tmp_path / "w.json", painted()), sandbox.ssh_string)
    dashboard.until_chip("Completed")


def test_the_key_of_comfy_org_goes_with_the_run_and_is_not_stored(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    prepare(dashboard, sandbox, tmp_path, steps=600)
    page, key = dashboard.page, "comfyui-0123456789abcdef"
    page.get_by_text("Name, seeds, priority").click()
    field = page.get_by_label("Comfy.org API key")
    field.fill(key)
    expect(field).to_have_attribute("type", "password")
    check(dashboard)
    page.reload()
    page.get_by_text("Name, seeds, priority").click()
    expect(field).to_have_value("")
    stored = page.evaluate("JSON.stringify({...localStorage, ...sessionStorage})")
    assert key not in stored
    field.fill(key)
    dashboard.press("Start")
    run_id = dashboard.run_id
    dashboard.server.until_status(run_id, "executing")
    sandbox.faults(version="0.3.64")  # newer versions do not show the key
    (running,) = requests.get(f"{sandbox.comfyui_url}/queue", timeout=30).json()["queue_running"]
    assert running[3]["api_key_comfy_org"] == key
    assert key not in json.dumps(dashboard.server.get(f"/{run_id}/request"))
    dashboard.server.post(f"/{run_id}/cancel")


def test_a_workflow_is_started_in_several_parts(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    prepare(dashboard, sandbox, tmp_path, seed=20, steps=1)
    dashboard.page.get_by_text("Name, seeds, priority").click()
    dashboard.page.get_by_label("Parts").fill("2")
    dashboard.press("Start")
    dashboard.until_chip("Completed")
    parts = dashboard.page.get_by_role("region", name="Parts").get_by_role("listitem")
    expect(parts).to_have_count(2)
    expect(dashboard.page.get_by_role("region", name="Results").locator("img")).to_have_count(2)
    parts.last.get_by_role("link").click()
    dashboard.until_chip("Completed")
    assert sampler_of(dashboard)["seed"] == 21
