"""Pages of other sites cannot use the server; tested in a real browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
from playwright.sync_api import Page

from comfyui_workflow.runs.model import FileType
from tests.browser import workflows
from tests.browser.chromium import require_chromium, running_site
from tests.browser.recorded import completed, failed, record
from tests.runs.test_state_machine import GRAPH
from tests.server_process import ServerProcess

SECRET = "seen-nowhere-else"
REFUSED_SSH = "ssh -p 1 root@127.0.0.1"
FOREIGN = ["http://other.example", "http://localhost.evil.example", "http://localhost", "http://127.0.0.1"]
"""Origins of attacking pages. The last two belong to another port of this machine."""
EXECUTE = {"ssh_connection": REFUSED_SSH, "workflow": GRAPH}
FETCH = """async ([url, options]) => {
    try {
        const answer = await fetch(url, options);
        return {status: answer.status, type: answer.type, text: await answer.text()};
    } catch (error) {
        return {failed: String(error)};
    }
}"""
POST_FORM = """([url, name, value]) => {
    const form = document.createElement("form");
    Object.assign(form, {method: "POST", action: url, enctype: "text/plain"});
    const field = document.createElement("input");
    Object.assign(field, {name, value});
    form.append(field);
    document.body.append(form);
    form.submit();
}"""
EMBED = """([tag, url]) => new Promise(resolve => {
    const element = document.createElement(tag);
    element.onload = () => resolve("loaded");
    element.onerror = () => resolve("refused");
    element[tag === "link" ? "href" : "src"] = url;
    if (tag === "link") element.rel = "stylesheet";
    document.body.append(element);
})"""


def made_key(directory: Path) -> Path:
    """With one there is something to try."""
    key = directory / "key"
    paramiko.ECDSAKey.generate().write_private_key_file(str(key))
    return key


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Starts a server with a completed run, a failed run, and a run that tries to connect."""
    require_chromium()
    directory = tmp_path_factory.mktemp("other sites")
    served = ServerProcess(directory, ssh_key=made_key(directory))
    picture = workflows.picture(directory / f"{SECRET}.png")
    record(served.data_dir, [completed("one", (picture, FileType.IMAGE)), failed("another", "It broke.")])
    with served:
        served.execute(REFUSED_SSH, GRAPH, workflow_name=SECRET)
        yield served


@pytest.fixture
def page(bare_page: Page) -> Page:
    """A page without the usual checks: it opens another host, and refused requests appear in its console."""
    return bare_page


@pytest.fixture(scope="module")
def site_port() -> Iterator[int]:
    with running_site() as port:
        yield port


def fetch(page: Page, url: str, **options: object) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate(FETCH, [url, options])
    return found


def post_json(page: Page, url: str, body: object) -> dict[str, Any]:
    return fetch(
        page,
        url,
        method="POST",
        headers={"Content-Type": "application/json"},
        body=page.evaluate("JSON.stringify", body),
    )


def runs(server: ServerProcess) -> list[tuple[str, bool]]:
    """Returns all runs with their field `cancel_requested`."""
    return [(run["workflow_id"], run["cancel_requested"]) for run in server.get("")["workflows"]]


def live_run(server: ServerProcess) -> str:
    return next(run["workflow_id"] for run in server.get("")["workflows"] if run["workflow_name"] == SECRET)


@pytest.fixture(params=FOREIGN)
def foreign_page(request: pytest.FixtureRequest, page: Page, site_port: int) -> Page:
    page.goto(f"{request.param}:{site_port}/")
    return page


def test_another_site_reads_nothing(foreign_page: Page, server: ServerProcess) -> None:
    for path in ("", "/state", f"/{live_run(server)}/progress", "/../../health"):
        assert "failed" in fetch(foreign_page, server.url + path)
        opaque = fetch(foreign_page, server.url + path, mode="no-cors")
        assert (opaque["type"], opaque["status"], opaque["text"]) == ("opaque", 0, "")


def test_another_site_starts_nothing(foreign_page: Page, server: ServerProcess) -> None:
    before = runs(server)
    url = f"{server.url}/execute"
    assert "failed" in post_json(foreign_page, url, EXECUTE)
    text = foreign_page.evaluate("JSON.stringify", EXECUTE)
    simple = fetch(foreign_page, url, method="POST", mode="no-cors", body=text)
    assert simple["type"] == "opaque"
    assert "failed" in fetch(
        foreign_page, url, method="POST", body=text, headers={"Content-Type": "text/plain"}
    )
    assert runs(server) == before


def test_another_site_cancels_and_retries_nothing(foreign_page: Page, server: ServerProcess) -> None:
    before = runs(server)
    for run_id, _ in before:
        for what in ("cancel", "retry"):
            assert "failed" in fetch(foreign_page, f"{server.url}/{run_id}/{what}", method="POST")
            fetch(foreign_page, f"{server.url}/{run_id}/{what}", method="POST", mode="no-cors")
            foreign_page.evaluate("url => navigator.sendBeacon(url)", f"{server.url}/{run_id}/{what}")
    assert runs(server) == before


@pytest.mark.parametrize("path", ["/execute", "/{id}/cancel"])
def test_a_form_of_another_site_does_nothing(foreign_page: Page, server: ServerProcess, path: str) -> None:
    before = runs(server)
    url = server.url + path.replace("{id}", live_run(server))
    text = foreign_page.evaluate("JSON.stringify", {**EXECUTE, "workflow_name": ""})
    name, value = text[:-2], '"}'  # a form sends name=value: together this is JSON
    with foreign_page.expect_navigation() as navigation:
        foreign_page.evaluate(POST_FORM, [url, name, value])
    assert navigation.value.status == 403
    assert navigation.value.json()["code"] == "refused"
    assert runs(server) == before


def test_another_site_embeds_nothing(foreign_page: Page, server: ServerProcess) -> None:
    root = server.url.removesuffix("/comfyui/workflow")
    completed = next(
        run["workflow_id"] for run in server.get("")["workflows"] if run["status"] == "completed"
    )
    picture = f"{server.url}/{completed}/outputs/0"
    for tag, url in (
        ("img", picture),
        ("img", f"{picture}?preview=64"),
        ("video", picture),
        ("script", f"{server.url}/state"),
        ("script", f"{root}/static/app.js"),
        ("link", f"{root}/static/style.css"),
    ):
        assert foreign_page.evaluate(EMBED, [tag, url]) == "refused", (tag, url)
    foreign_page.evaluate(EMBED, ["iframe", f"{root}/"])
    assert not any("Runs" in frame.content() for frame in foreign_page.frames)


def test_a_link_on_another_site_leads_to_the_page(foreign_page: Page, server: ServerProcess) -> None:
    root = server.url.removesuffix("/comfyui/workflow")
    with foreign_page.expect_navigation() as navigation:
        foreign_page.evaluate("url => { location.href = url; }", f"{root}/")
    assert navigation.value.status == 200


def test_a_page_without_an_origin_reads_and_starts_nothing(page: Page, server: ServerProcess) -> None:
    before = runs(server)
    page.goto("data:text/html,<title>no origin</title>")
    assert "failed" in fetch(page, f"{server.url}/state")
    assert "failed" in post_json(page, f"{server.url}/execute", EXECUTE)
    cancelled = fetch(page, f"{server.url}/{before[0][0]}/cancel", method="POST", mode="no-cors")
    assert not cancelled.get("text")
    assert runs(server) == before


def test_a_name_that_is_bound_to_this_machine_by_somebody_else_is_refused(
    page: Page, server: ServerProcess
) -> None:
    before = runs(server)
    rebound = server.url.replace("127.0.0.1", "evil.example")
    answer = page.goto(rebound.replace("/comfyui/workflow", "/"))
    assert answer is not None
    assert answer.status == 403
    assert SECRET not in page.content()
    for path in ("", "/state", f"/{live_run(server)}/outputs"):
        found = fetch(page, rebound + path)
        assert found["status"] == 403
        assert SECRET not in found["text"]
    assert post_json(page, f"{rebound}/execute", EXECUTE)["status"] == 403
    assert fetch(page, f"{rebound}/{live_run(server)}/cancel", method="POST")["status"] == 403
    assert runs(server) == before


def test_a_page_of_an_allowed_origin_may_use_the_api(page: Page, site_port: int, tmp_path: Path) -> None:
    origin = f"http://localhost:{site_port}"
    with ServerProcess(tmp_path, cors_hosts=origin, ssh_key=made_key(tmp_path)) as server:
        server.execute(REFUSED_SSH, GRAPH, workflow_name=SECRET)
        _use_the_api(page, server, origin)


def _use_the_api(page: Page, server: ServerProcess, origin: str) -> None:
    page.goto(f"{origin}/")
    listed = fetch(page, server.url)
    assert listed["status"] == 200
    assert SECRET in listed["text"]
    started = post_json(page, f"{server.url}/execute", EXECUTE)
    assert started["status"] == 200
    run_id = page.evaluate("JSON.parse", started["text"])["workflow_id"]
    assert fetch(page, f"{server.url}/{run_id}/cancel", method="POST")["status"] == 200
    server.until_status(run_id, "cancelled")
