"""A run from a local file to the output picture."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser import workflows
from tests.browser.dashboard import Dashboard
from tests.integration.graphs import loaded, painted
from tests.sandbox_process import SandboxProcess
from tests.workflows import media

LARGEST_SEED = 2**64 - 1
"""Largest seed of ComfyUI; integers in JavaScript are exact up to 2**53."""
DROP = """([selector, name, text]) => {
    const carried = new DataTransfer();
    carried.items.add(new File([text], name, {type: "application/json"}));
    for (const kind of ["dragover", "drop"]) {
        const happening = new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: carried});
        document.querySelector(selector).dispatchEvent(happening);
    }
}"""


def test_from_a_file_to_the_gallery(dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path) -> None:
    page = dashboard.page
    dashboard.open()
    page.get_by_role("link", name="Start a run").first.click()
    start, check = (page.get_by_role("button", name=name, exact=True) for name in ("Start", "Check"))
    expect(start).to_be_disabled()
    dashboard.choose_workflow(workflows.saved(tmp_path / "lake.json", workflows.text_to_image(steps=3)))
    expect(dashboard.part("Workflow")).to_contain_text("lake · 7 nodes · API format")
    expect(start).to_be_disabled()
    dashboard.give_ssh(sandbox.ssh_string)
    page.get_by_role("group", name="Prompt CLIPTextEncode", exact=True).get_by_label("text").fill(
        "a harbour at night"
    )
    seed = page.get_by_label("seed", exact=True)
    expect(seed).to_have_value("20")
    dashboard.press("Random")
    expect(seed).not_to_have_value("20")
    drawn = seed.input_value()
    check.click()
    page.get_by_role("status").filter(has_text="The instance can run this.").wait_for()
    start.click()

    run_id = dashboard.run_id
    dashboard.until_chip("Completed")
    expect(page).to_have_title("lake – ComfyUI runs")
    small = dashboard.page.locator("ul.gallery img")
    assert small.evaluate("async img => { await img.decode(); return img.naturalWidth; }") == 128
    page.get_by_text("Graph and inputs").click()
    graph = page.locator("details.graph")
    expect(graph.get_by_text("a harbour at night")).to_be_visible()
    expect(graph.get_by_text(drawn, exact=True)).to_be_visible()
    submitted = dashboard.server.get(f"/{run_id}/request")["graph"]
    assert (submitted["6"]["inputs"]["text"], submitted["3"]["inputs"]["seed"]) == (
        "a harbour at night",
        int(drawn),
    )
    assert len(sandbox.executions()) == 1


def test_the_port_of_comfyui_has_a_field(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    """The port of the ssh string is another one; the field is offered again with the run."""
    wrong = sandbox.ssh_string.replace(f":{sandbox.comfyui_port}", ":9")
    page = dashboard.page
    dashboard.open("start")
    dashboard.choose_workflow(workflows.saved(tmp_path / "w.json", painted()))
    dashboard.give_ssh(wrong)
    port = page.get_by_label("Port of ComfyUI on the machine")
    port.fill(str(sandbox.comfyui_port))
    page.get_by_role("button", name="Start", exact=True).click()
    dashboard.until_chip("Completed")
    sent = dashboard.server.get(f"/{dashboard.run_id}/request")["request"]
    assert (sent["ssh_connection"], sent["comfyui_port"]) == (wrong, sandbox.comfyui_port)
    dashboard.open(f"start?from={dashboard.run_id}")
    expect(port).to_have_value(str(sandbox.comfyui_port))


def in_api_format(directory: Path) -> Path:
    return workflows.saved(directory / "chosen.json", painted())


def in_the_editors_format(directory: Path) -> Path:
    return workflows.saved(directory / "chosen.json", workflows.for_the_editor())


def in_a_picture(directory: Path) -> Path:
    return workflows.inside_a_picture(directory / "chosen.png", painted())


def in_a_video(directory: Path) -> Path:
    (directory / "chosen.mp4").write_bytes(media.mp4({"prompt": json.dumps(painted())}))
    return directory / "chosen.mp4"


def in_the_body_of_a_prompt(directory: Path) -> Path:
    return workflows.saved(directory / "chosen.json", {"prompt": painted(), "client_id": "x"})


@pytest.mark.parametrize(
    "make", [in_api_format, in_the_editors_format, in_a_picture, in_a_video, in_the_body_of_a_prompt]
)
def test_a_workflow_of_any_kind(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    dashboard.start(make(tmp_path), sandbox.ssh_string)
    dashboard.until_chip("Completed")
    expect(dashboard.page.locator("ul.gallery img")).to_have_count(1)
    expect(dashboard.page.locator("h1")).to_have_text("chosen")


def test_a_workflow_is_dropped_on_its_place_and_nowhere_else(dashboard: Dashboard) -> None:
    dashboard.open("start")
    dashboard.part("Workflow").wait_for()
    text = json.dumps(painted())
    dashboard.page.evaluate(DROP, ["h1", "beside.json", text])
    dashboard.page.evaluate(DROP, ["section.card[data-drop]", "dropped.json", text])
    expect(dashboard.part("Workflow")).to_contain_text("dropped · 3 nodes")


def test_a_picture_goes_to_the_node_that_loads_it(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    graph = loaded("first.png") | {
        "4": {"class_type": "LoadImage", "inputs": {"image": "second.png"}},
        "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "other"}},
    }
    dashboard.open("start")
    dashboard.choose_workflow(workflows.saved(tmp_path / "w.json", graph))
    pictures = [
        workflows.picture(tmp_path / "second.png", "red", (50, 40)),
        workflows.picture(tmp_path / "anything.png", "blue", (30, 20)),
    ]
    files = dashboard.part("Input files")
    files.locator("input[multiple]").set_input_files(pictures)
    first, second = files.locator("li").all()
    for slot, name, width in ((first, "anything", 30), (second, "second", 50)):
        thumbnail = slot.get_by_role("img", name=name)
        assert thumbnail.evaluate("async img => { await img.decode(); return img.naturalWidth; }") == width
    dashboard.give_ssh(sandbox.ssh_string)
    dashboard.press("Start")
    run_id = dashboard.run_id
    dashboard.until_chip("Completed")
    made = dashboard.page.locator("ul.gallery img")
    expect(made).to_have_count(2)
    widths = [
        img.evaluate("async img => { await img.decode(); return img.naturalWidth; }") for img in made.all()
    ]
    assert sorted(widths) == [30, 50]
    graph = dashboard.server.get(f"/{run_id}/request")["graph"]
    assert graph["1"]["inputs"]["image"].startswith("anything")
    assert graph["4"]["inputs"]["image"].startswith("second")


def test_two_pictures_of_one_name_go_to_two_nodes(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    """Files with the names of pasted pictures. The first node names its own with a directory."""
    graph = loaded("pasted/image.png") | {
        "4": {"class_type": "LoadImage", "inputs": {"image": "second.png"}},
        "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "other"}},
    }
    dashboard.open("start")
    dashboard.choose_workflow(workflows.saved(tmp_path / "w.json", graph))
    files = dashboard.part("Input files").locator("li")
    for number, (color, size) in enumerate((("red", (50, 40)), ("blue", (30, 20)))):
        (tmp_path / color).mkdir()
        picture = workflows.picture(tmp_path / color / "image.png", color, size)
        files.nth(number).locator("input[type=file]").set_input_files(picture)
        expect(files.nth(number).get_by_role("img")).to_be_visible()
    dashboard.give_ssh(sandbox.ssh_string)
    dashboard.press("Start")
    run_id = dashboard.run_id
    dashboard.until_chip("Completed")
    outputs = dashboard.server.progress(run_id)["outputs"]
    assert sorted(Image.open(each["local_path"]).size for each in outputs) == [(30, 20), (50, 40)]


def test_the_last_place_is_offered_again(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    dashboard.start(workflows.saved(tmp_path / "w.json", painted()), sandbox.ssh_string)
    dashboard.page.reload()
    dashboard.open("start")
    expect(dashboard.page.get_by_label("ssh string")).to_have_value(sandbox.ssh_string)


def test_a_draft_outlives_a_look_at_something_else(dashboard: Dashboard, tmp_path: Path) -> None:
    page: Page = dashboard.page
    dashboard.open("start")
    dashboard.choose_workflow(workflows.saved(tmp_path / "w.json", workflows.text_to_image()))
    page.get_by_label("steps").fill("7")
    page.get_by_role("link", name="Runs", exact=True).click()
    page.get_by_role("heading", name="Now").wait_for()
    page.go_back()
    expect(page.get_by_label("steps")).to_have_value("7")


def seed_and_steps(dashboard: Dashboard) -> tuple[int, int]:
    """Returns seed and steps of the run whose view is open."""
    sampler = dashboard.server.get(f"/{dashboard.run_id}/request")["graph"]["3"]["inputs"]
    return int(sampler["seed"]), sampler["steps"]


def test_a_seed_that_no_browser_can_count_is_the_same_when_it_is_run_again(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    page = dashboard.page
    graph = workflows.text_to_image(seed=LARGEST_SEED, steps=1)
    first = dashboard.start(workflows.saved(tmp_path / "w.json", graph), sandbox.ssh_string)
    dashboard.until_chip("Completed")
    assert seed_and_steps(dashboard) == (LARGEST_SEED, 1)
    page.get_by_role("link", name="Run again with changes").click()
    page.get_by_label("steps", exact=True).fill("2")
    dashboard.press("Start")
    page.wait_for_url(lambda url: "#/run/" in url and first not in url)
    dashboard.until_chip("Completed")
    assert seed_and_steps(dashboard) == (LARGEST_SEED, 2)


def test_a_seed_that_no_browser_can_count_may_be_typed(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    dashboard.open("start")
    dashboard.choose_workflow(workflows.saved(tmp_path / "w.json", workflows.text_to_image(steps=1)))
    dashboard.page.get_by_label("seed", exact=True).fill(str(LARGEST_SEED))
    dashboard.give_ssh(sandbox.ssh_string)
    dashboard.press("Start")
    dashboard.until_chip("Completed")
    assert seed_and_steps(dashboard) == (LARGEST_SEED, 1)


def test_what_is_changed_after_a_check_is_not_said_to_be_checked(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    page = dashboard.page
    said = page.locator(".footer [role=status]")
    dashboard.open("start")
    dashboard.choose_workflow(workflows.saved(tmp_path / "w.json", workflows.text_to_image()))
    dashboard.give_ssh(sandbox.ssh_string)
    dashboard.press("Check")
    expect(said).to_have_text("The instance can run this.")
    page.get_by_label("steps", exact=True).fill("0")
    expect(said).to_have_text("Changed since the last check.")
    dashboard.press("Check")
    expect(said).to_contain_text("The instance cannot run this")
