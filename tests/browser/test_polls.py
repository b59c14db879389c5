"""The polling interval of the page, with a simulated clock."""

import itertools
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.dashboard import Dashboard
from tests.integration.graphs import painted
from tests.sandbox_process import SandboxProcess

SECOND_MS = 1_000
NOTE_LOOKS = """() => {
    const ask = window.fetch;
    window.looks = [];
    let underway = 0;
    window.fetch = async (address, options = {}) => {
        const look = {
            path: new URL(address, location.href).pathname,
            at_s: performance.now() / 1000,
            underway: ++underway,
            condition: new Headers(options.headers).get("If-None-Match"),
            status: null,
            isOver: false,
        };
        const end = () => { look.isOver = true; underway -= 1; };
        window.looks.push(look);
        try {
            const answer = await ask(address, options);
            look.status = answer.status;
            const read = answer.text.bind(answer);
            answer.text = () => read().finally(end);
            if (look.status === 304) end();
            return answer;
        } catch (error) {
            end();
            throw error;
        }
    };
}"""
"""A poll ends when its response has been read. Then the next one starts immediately, or is scheduled."""


class Looks:
    """Records the requests of the page and controls its clock, which stands still otherwise."""

    def __init__(self, page: Page) -> None:
        self._page = page
        page.clock.install(time=0)
        page.clock.pause_at(SECOND_MS)
        page.add_init_script(f"({NOTE_LOOKS})()")

    def all(self) -> list[dict[str, Any]]:
        """Waits until no request is running."""
        self._page.wait_for_function("() => window.looks.every(look => look.isOver)")
        found: list[dict[str, Any]] = self._page.evaluate("window.looks")
        return found

    def of(self, seconds: float, path: str) -> int:
        """Advances the clock; returns the number of requests that start in that time."""
        before = len(self.all())
        for _ in range(round(seconds * 2)):
            self._page.clock.run_for(SECOND_MS // 2)
            self.all()
        return sum(look["path"].endswith(path) for look in self.all()[before:])


@pytest.fixture
def looks(page: Page) -> Looks:
    return Looks(page)


def hide(page: Page, *, is_hidden: bool) -> None:
    page.evaluate(
        """isHidden => {
            Object.defineProperty(document, "hidden", {value: isHidden, configurable: true});
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        is_hidden,
    )


@pytest.fixture(params=["", "instances", "run"])
def open_view(
    request: pytest.FixtureRequest, dashboard: Dashboard, looks: Looks, sandbox: SandboxProcess
) -> str:
    """Opens a view; returns the end of the path of each poll."""
    if request.param == "run":
        run_id = dashboard.server.execute(sandbox.ssh_string, painted())
        dashboard.server.until_finished(run_id)
        dashboard.open_run(run_id)
        return "/progress"
    dashboard.open(request.param)
    dashboard.page.locator("h1").wait_for(state="attached")
    return "/now" if request.param == "" else "/instances"


def test_every_two_seconds_one_after_the_other(open_view: str, looks: Looks) -> None:
    assert looks.of(10, open_view) in (4, 5)
    asked = looks.all()
    assert {look["underway"] for look in asked} == {1}
    at_s = [look["at_s"] for look in asked if look["path"].endswith(open_view)]
    assert all(later - earlier > 1.9 for earlier, later in itertools.pairwise(at_s))


def test_what_has_not_changed_is_not_sent_again(open_view: str, looks: Looks) -> None:
    looks.of(6, open_view)
    first, *later = [look for look in looks.all() if look["path"].endswith(open_view)]
    assert (first["condition"], first["status"]) == (None, 200)
    assert [look["status"] for look in later].count(304) >= len(later) - 1
    assert all(look["condition"] for look in later)


def test_an_answer_that_takes_long_is_awaited(dashboard: Dashboard, looks: Looks) -> None:
    page = dashboard.page
    dashboard.open()
    dashboard.part("Now").wait_for()
    looks.all()
    held: list[Route] = []
    page.route("**/now", lambda route: held.append(route))  # noqa: PLW0108 - it must take a mark
    with page.expect_request("**/now"):
        page.clock.run_for(3 * SECOND_MS)
    before = page.evaluate("window.looks.length")
    page.evaluate("window.dispatchEvent(new Event('online'))")  # an event that triggers an immediate poll
    page.clock.run_for(15 * SECOND_MS)
    assert page.evaluate("window.looks.length") == before
    (kept,) = held
    kept.continue_()
    page.unroute("**/now")
    assert looks.of(1, "/now") == 1
    assert looks.of(4, "/now") in (1, 2)
    assert max(look["underway"] for look in looks.all()) == 1


def test_a_hidden_page_asks_seldom_and_at_once_when_it_is_seen(dashboard: Dashboard, looks: Looks) -> None:
    page = dashboard.page
    dashboard.open()
    dashboard.part("Now").wait_for()
    hide(page, is_hidden=True)
    looks.of(3, "/now")
    assert looks.of(18, "/now") <= 1
    with page.expect_request("**/now"):
        hide(page, is_hidden=False)
    assert looks.of(6, "/now") >= 2


def test_a_server_that_fails_is_asked_less_and_less(dashboard: Dashboard, looks: Looks) -> None:
    page = dashboard.page
    dashboard.open()
    dashboard.part("Now").wait_for()
    dashboard.watch.allow_status(500, "/comfyui/workflow/now")
    page.route("**/now", lambda route: route.fulfill(status=500, json={"message": "It is tired."}))
    assert 2 <= looks.of(12, "/now") <= 4
    expect(dashboard.notice()).to_have_text("It is tired.")
    assert looks.of(45, "/now") <= 4
    page.unroute("**/now")
    assert looks.of(16, "/now") >= 1
    expect(dashboard.notice()).to_be_hidden()
    assert looks.of(6, "/now") in (2, 3)


def test_the_list_is_asked_for_again_only_when_something_happened(
    dashboard: Dashboard, looks: Looks, sandbox: SandboxProcess
) -> None:
    dashboard.open()
    dashboard.part("All runs").wait_for()
    assert looks.of(8, "/comfyui/workflow") == 0
    run_id = dashboard.server.execute(sandbox.ssh_string, painted(), workflow_name="news of it")
    dashboard.server.until_finished(run_id)
    assert looks.of(4, "/comfyui/workflow") >= 1
    expect(dashboard.row("news of it").locator(".chip")).to_have_text("Completed")
