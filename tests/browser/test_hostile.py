"""Texts of a workflow or an instance are shown unchanged, also if they contain markup."""

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from comfyui_workflow.runs.model import FileType
from tests.browser import workflows
from tests.browser.dashboard import Dashboard
from tests.browser.recorded import completed, failed, record
from tests.integration.graphs import failing, painted, slow
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess

HOSTILE = (
    """<img src=x onerror="window.wasRun=1"><script>window.wasRun=2</script>"""
    """'"&lt;b&gt; \u202egpj.\u2066 \\u003c"""
)
WITHOUT_SLASH = """<img src=x onerror="window.wasRun=1">'&quot; ${1} .png"""
"""For names of files and instances, which cannot contain a slash."""
INJECT = {
    "markup": """() => { document.body.innerHTML = "<img src=y onerror='window.wasRun=3'>"; }""",
    "a script": """() => { document.createElement("script").text = "window.wasRun = 4"; }""",
    "a handler": """() => { document.body.setAttribute("onclick", "window.wasRun = 5"); }""",
    "a frame": """() => { document.createElement("iframe").srcdoc = "<script>parent.wasRun=6</script>"; }""",
}

IS_LEFT_TO_RIGHT = """(element, words) => {
    const texts = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const start = texts.currentNode.data.indexOf(words);
        if (start < 0) continue;
        const left = place => {
            const range = document.createRange();
            range.setStart(texts.currentNode, place);
            range.setEnd(texts.currentNode, place + 1);
            return range.getBoundingClientRect().left;
        };
        const from = start + words.search(/\\S/);
        return left(from) < left(from + words.trim().length - 1);
    }
    throw new Error(`there is no ${words}`);
}"""


def nothing_was_run(dashboard: Dashboard) -> None:
    page = dashboard.page
    assert page.evaluate("window.wasRun === undefined")
    assert page.locator("main script, main iframe, main [onerror], img[src=x]").count() == 0
    assert not [url for url in dashboard.watch.asked if url.endswith(("/x", "/y"))]


def test_in_the_view_of_a_run(dashboard: Dashboard, sandbox: SandboxProcess) -> None:
    page = dashboard.page
    graph = workflows.titled(failing(HOSTILE), n1="The paper", n2=HOSTILE)
    dashboard.open_run(dashboard.server.execute(sandbox.ssh_string, graph, workflow_name=HOSTILE))
    dashboard.until_chip("Failed")
    expect(page.locator("h1")).to_have_text(HOSTILE, use_inner_text=False)
    assert page.title().endswith(" – ComfyUI runs")
    assert "<script>" in page.title()
    node = page.locator("li.node[data-status=failed]")
    assert node.locator(".name").text_content() == HOSTILE
    assert "<script>window.wasRun=2</script>" in str(node.locator(".problem").text_content())
    page.get_by_text("Graph and inputs").click()
    expect(page.locator("details.graph dd:not(.quiet)", has_text="<script>")).to_be_visible()
    nothing_was_run(dashboard)


def test_in_the_name_of_a_file(dashboard: Dashboard, sandbox: SandboxProcess) -> None:
    page = dashboard.page
    graph = painted(3, prefix=WITHOUT_SLASH)
    dashboard.open_run(dashboard.server.execute(sandbox.ssh_string, graph, workflow_name="a file"))
    dashboard.until_chip("Completed")
    name = f"{WITHOUT_SLASH}_00001_.png"
    picture = page.locator("ul.gallery img")
    assert picture.evaluate("async img => { await img.decode(); return img.naturalWidth; }") == 32
    assert picture.get_attribute("alt") == name
    assert page.locator("ul.gallery a.name").text_content() == name
    picture.click()
    assert page.locator("#viewer .name").text_content() == name
    page.keyboard.press("Escape")
    with page.expect_download() as saved:
        page.locator("ul.gallery a.name").click()
    assert saved.value.path().read_bytes().startswith(b"\x89PNG")
    nothing_was_run(dashboard)


def test_in_the_list_and_in_questions(
    make_server: Callable[..., ServerProcess],
    make_dashboard: Callable[[ServerProcess], Dashboard],
    sandbox: SandboxProcess,
    tmp_path: Path,
) -> None:
    picture = workflows.picture(tmp_path / "p.png")
    runs = [completed(HOSTILE, (picture, FileType.IMAGE), number=1), failed(HOSTILE, f"It said {HOSTILE}", 2)]
    record(tmp_path / "data", runs)
    server = make_server(data_dir=tmp_path / "data")
    dashboard = make_dashboard(server)
    page = dashboard.page
    sandbox.faults(hold=True)
    live = server.execute(sandbox.ssh_string, painted(), workflow_name=HOSTILE)
    server.until(live, lambda run: run["queue_position"] is not None)
    batch = {"ssh_connection": sandbox.ssh_string, "workflow": painted(), "batch_name": HOSTILE}
    batch |= {"rows": [{"1.color": 1}, {"1.color": 2}], "output_dir": str(tmp_path)}
    assert server.post("/batch", batch).status_code == 200
    dashboard.open()
    expect(page.locator(".rows .name", has_text=HOSTILE)).to_have_count(4)
    for name in page.locator(".rows .name").all():
        assert name.text_content() == HOSTILE
    expect(dashboard.part("Needs attention").locator("li p")).to_contain_text(
        f"It said {HOSTILE}", use_inner_text=False
    )
    dashboard.open_run(live)
    dashboard.press("Cancel")
    assert page.locator("#question h2").text_content() == f"Cancel “{HOSTILE}”?"
    page.get_by_role("button", name="Cancel the run").click()
    dashboard.until_chip("Cancelled")
    nothing_was_run(dashboard)
    server.kill()
    dashboard.watch.allow_absence()


def test_a_name_does_not_turn_round_what_comes_after_it(
    dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    """A right-to-left mark in a name affects this name only."""
    page = dashboard.page
    name = "turned\u202eround"
    graph = workflows.titled(failing("\u202eit broke"), n2=name)
    run_id = dashboard.server.execute(sandbox.ssh_string, graph, workflow_name=name)
    dashboard.server.until_finished(run_id)
    dashboard.open()
    after_name = dashboard.part("Needs attention").locator("li p").first
    assert after_name.evaluate(IS_LEFT_TO_RIGHT, " failed ")
    dashboard.open_run(run_id)
    page.get_by_text("Graph and inputs").click()
    heading = page.locator("details.graph h3").nth(1)
    assert heading.evaluate(IS_LEFT_TO_RIGHT, "SandboxRaise")
    dashboard.open("start")
    dashboard.choose_workflow(workflows.saved(tmp_path / f"{name}.json", graph))
    assert dashboard.part("Workflow").locator("p").first.evaluate(IS_LEFT_TO_RIGHT, "3 nodes")


def test_beside_the_steps_of_the_node_that_runs(dashboard: Dashboard, sandbox: SandboxProcess) -> None:
    graph = workflows.titled(slow(4, steps=600), n2="turned\u202eround")
    run = dashboard.server.execute(sandbox.ssh_string, graph, workflow_name="long")
    dashboard.server.until(run, lambda p: any(0 < node["progress"] < 100 for node in p["nodes"]))
    dashboard.open_run(run)
    line = dashboard.page.locator("section.watch strong")
    expect(line).to_contain_text(" of 600")
    assert line.evaluate(IS_LEFT_TO_RIGHT, " of 600")


def test_in_a_workflow_that_is_chosen(dashboard: Dashboard, sandbox: SandboxProcess, tmp_path: Path) -> None:
    page = dashboard.page
    graph = workflows.titled(workflows.text_to_image(), n6=HOSTILE)
    graph["6"]["inputs"]["text"] = f"</textarea>{HOSTILE}"
    graph["4"]["inputs"]["ckpt_name"] = HOSTILE
    dashboard.open("start")
    dashboard.choose_workflow(workflows.saved(tmp_path / f"{WITHOUT_SLASH}.json", graph))
    assert page.locator("section.card strong").first.text_content() == WITHOUT_SLASH
    texts = [field.input_value() for field in page.locator("textarea").all()]
    assert f"</textarea>{HOSTILE}" in texts
    dashboard.give_ssh(sandbox.ssh_string)
    dashboard.press("Check")
    expect(page.locator(".problem").first).to_contain_text("<script>window.wasRun=2</script>")
    nothing_was_run(dashboard)


def test_in_the_name_of_an_instance(dashboard: Dashboard) -> None:
    page = dashboard.page
    dashboard.open("instances")
    form = page.locator("form.add")
    form.get_by_label("Name").fill(WITHOUT_SLASH)
    form.get_by_label("ssh string").fill("ssh -p 1 root@127.0.0.1")
    form.get_by_role("button", name="Add").click()
    card = page.locator("li.instance")
    assert card.locator("h2").text_content() == WITHOUT_SLASH
    expect(page.locator("#said")).to_have_text(f"{WITHOUT_SLASH} is added.")
    card.get_by_role("button", name="Remove").click()
    assert WITHOUT_SLASH in str(page.locator("#question h2").text_content())
    page.keyboard.press("Escape")
    dashboard.open("start")
    assert WITHOUT_SLASH in str(page.locator("select option").first.text_content())
    nothing_was_run(dashboard)


def test_the_policy_lets_nothing_in(dashboard: Dashboard) -> None:
    page: Page = dashboard.page
    answer = page.goto(dashboard.root)
    assert answer is not None
    policy = answer.headers["content-security-policy"]
    directives = dict(each.strip().partition(" ")[::2] for each in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert "unsafe" not in policy
    assert "*" not in policy
    assert "http" not in policy
    assert directives["script-src"] == "'self'"
    assert directives["frame-ancestors"] == "'none'"
    assert directives["base-uri"] == "'none'"
    assert directives["require-trusted-types-for"] == "'script'"


def test_what_comes_into_the_page_all_the_same_is_not_run(dashboard: Dashboard) -> None:
    page = dashboard.page
    dashboard.watch.allow("This document requires 'Trusted")
    dashboard.open()
    dashboard.part("Now").wait_for()
    for what, injection in INJECT.items():
        refused = page.evaluate(
            f"() => {{ try {{ ({injection})(); return null; }} catch (error) {{ return error.name; }} }}"
        )
        assert refused == "TypeError", what
    page.locator("body").click()
    nothing_was_run(dashboard)
