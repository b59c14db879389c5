"""The page, in a real browser."""

from playwright.sync_api import Page

from tests.browser.conftest import HOSTILE, SECRET
from tests.server_process import ServerProcess


def test_the_page_shows_what_it_is_told_as_text_and_asks_nobody_else(
    page: Page, server: ServerProcess
) -> None:
    root = server.url.removesuffix("comfyui/workflow")
    troubles: list[str] = []
    asked: list[str] = []
    page.on(
        "console",
        lambda message: troubles.append(message.text) if message.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(root)
    picture = page.locator("li[data-status=completed] img")
    assert picture.evaluate("async img => { await img.decode(); return img.naturalWidth; }") == 40

    assert page.locator("li").count() == 3
    assert page.locator("li[data-status=completed] .name").text_content() == HOSTILE
    assert page.locator("li[data-status=failed] .now").text_content() == f"It said: {HOSTILE}"
    assert page.get_by_text(SECRET).count() == 1
    assert page.locator("li script, li .name img, li .now img").count() == 0
    assert page.title() == "ComfyUI runs"
    assert troubles == []
    assert asked
    assert [url for url in asked if not url.startswith(root)] == []


def test_the_page_follows_what_happens_and_says_when_the_server_is_away(
    page: Page, server: ServerProcess
) -> None:
    page.goto(server.url.removesuffix("comfyui/workflow"))
    live = page.locator("li", has_text=SECRET)
    live.wait_for()
    server.post(f"/{live.get_attribute('id')}/cancel")
    page.locator("li[data-status=cancelled]", has_text=SECRET).wait_for()
    page.route("**/comfyui/workflow?*", lambda route: route.abort())
    page.get_by_text("The server is away").wait_for()
    page.unroute("**/comfyui/workflow?*")
    page.get_by_text("The server is away").wait_for(state="hidden")
