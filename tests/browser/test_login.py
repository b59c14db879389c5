"""A server with a token asks for the token once."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from comfyui_workflow.access.login_cookie import COOKIE
from tests.browser import workflows
from tests.browser.chromium import require_chromium, running_site
from tests.browser.dashboard import Dashboard
from tests.browser.watching import Watch
from tests.integration.graphs import painted
from tests.sandbox_process import SandboxProcess
from tests.server_process import ServerProcess

TOKEN = "a-token-of-this-test"


@pytest.fixture(scope="module")
def server_with_token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Starts a server with a token that may connect to a sandbox on this machine."""
    require_chromium()
    directory = tmp_path_factory.mktemp("login")
    keys = tmp_path_factory.getbasetemp()
    settings = {"api_token": TOKEN, "ssh_key_dirs": keys, "local_instances": True}
    with ServerProcess(directory, **settings) as server:
        yield server


@pytest.fixture
def guarded(
    make_dashboard: Callable[[ServerProcess], Dashboard], server_with_token: ServerProcess
) -> Dashboard:
    return make_dashboard(server_with_token)


def log_in(page: Page, token: str) -> None:
    page.get_by_label("API token").fill(token)
    page.get_by_role("button", name="Log in").click()


def test_in_and_out(guarded: Dashboard) -> None:
    page = guarded.page
    guarded.watch.allow_status(401, "/login")
    guarded.open()
    expect(page.get_by_label("API token")).to_be_focused()
    log_in(page, "something else")
    expect(page.get_by_role("alert")).to_have_text("This is not the token of this server.")
    expect(page.get_by_label("API token")).to_have_value("")
    log_in(page, TOKEN)
    guarded.part("Now").wait_for()
    (cookie,) = page.context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == (COOKIE, True, "Strict")
    assert TOKEN not in cookie["value"]
    assert page.evaluate("document.cookie") == ""
    assert TOKEN not in page.content()
    page.reload()
    guarded.part("Now").wait_for()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("API token")).to_be_visible()
    assert page.context.cookies() == []
    page.go_back()
    expect(page.get_by_label("API token")).to_be_visible()


def test_a_page_whose_login_has_ended_asks_for_the_token(guarded: Dashboard) -> None:
    page = guarded.page
    guarded.watch.allow_status(401, "/comfyui/")
    guarded.open()
    log_in(page, TOKEN)
    guarded.part("Now").wait_for()
    page.context.clear_cookies()
    expect(page.get_by_label("API token")).to_be_visible()


def test_the_login_leads_to_what_was_asked_for(guarded: Dashboard, tmp_path: Path) -> None:
    page = guarded.page
    guarded.watch.allow_status(401, "/")
    guarded.open("instances")
    log_in(page, "something else")
    page.get_by_role("alert").wait_for()
    log_in(page, TOKEN)
    page.get_by_role("heading", name="Instances", exact=True).wait_for()
    guarded.open("start")
    guarded.choose_workflow(workflows.saved(tmp_path / "w.json", workflows.text_to_image()))
    page.get_by_label("steps", exact=True).fill("7")
    page.context.clear_cookies()
    log_in(page, TOKEN)
    expect(page.get_by_label("steps", exact=True)).to_have_value("7")


def test_all_that_the_page_asks_is_let_in(
    guarded: Dashboard, sandbox: SandboxProcess, tmp_path: Path
) -> None:
    page = guarded.page
    guarded.open()
    log_in(page, TOKEN)
    guarded.part("Now").wait_for()
    guarded.start(workflows.saved(tmp_path / "w.json", painted()), sandbox.ssh_string)
    guarded.until_chip("Completed")
    picture = page.locator("ul.gallery img")
    assert picture.evaluate("async img => { await img.decode(); return img.naturalWidth; }") == 32
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download all").click()
    assert saved.value.suggested_filename == "w.zip"


def test_without_a_login_there_is_nothing(guarded: Dashboard) -> None:
    page = guarded.page
    guarded.open("instances")
    expect(page.get_by_label("API token")).to_be_visible()
    assert "Instances" not in page.content()
    for path in ("/comfyui/workflow", "/comfyui/workflow/now", "/comfyui/instances"):
        assert page.request.get(f"{guarded.root}{path}").status == 401


def test_without_scripts_the_login_leads_to_the_page(browser: Browser, guarded: Dashboard) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    watch = Watch(page)
    page.goto(guarded.root)
    log_in(page, TOKEN)
    assert "This page needs JavaScript." in str(page.locator("noscript p").text_content())
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("API token")).to_be_visible()
    watch.check()
    context.close()


def test_a_link_on_another_site_leads_to_the_page_without_asking_again(
    bare_page: Page, guarded: Dashboard
) -> None:
    guarded.open()
    log_in(bare_page, TOKEN)
    guarded.part("Now").wait_for()
    with running_site() as port:
        bare_page.goto(f"http://other.example:{port}/")
        bare_page.evaluate("url => { location.href = url; }", guarded.root)
        guarded.part("Now").wait_for()
    guarded.watch.forget_hosts()
