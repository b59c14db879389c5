"""Page load in a browser: time until the first paint and until the runs are shown."""

from collections.abc import Iterator

from playwright.sync_api import Browser

from bench.open_pages import fill
from bench.table import Figure, Row, median
from bench.testbed import Testbed
from tests.browser.chromium import running_chromium
from tests.server_process import ServerProcess

FINISHED = (1_000, 10_000)
LIMIT_MS = 30_000
_WATCH = """
new MutationObserver((_changes, observer) => {
  if (!document.querySelector(".rows > li")) return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => { window.firstDataMs = performance.now(); }));
}).observe(document, { childList: true, subtree: true });
"""
"""Records the time from navigation to the frame that shows the first row of the list."""
_SEEN = """
() => new Promise((resolve) => {
  const check = () => {
    const paint = performance.getEntriesByName("first-contentful-paint")[0];
    if (paint && window.firstDataMs) resolve([paint.startTime, window.firstDataMs]);
    else setTimeout(check, 20);
  };
  check();
})
"""


def rows(testbed: Testbed, runs: int, finished: tuple[int, ...] = FINISHED) -> Iterator[Row]:
    with running_chromium() as browser:
        for count in finished:
            server = ServerProcess(testbed.new_directory(f"first sight {count}"))
            fill(server.data_dir, count)
            with server:
                yield _row(browser, server.url.removesuffix("comfyui/workflow"), runs, count)


def _row(browser: Browser, url: str, runs: int, count: int) -> Row:
    _open(browser, url)  # the first context of a browser is slower
    seen = [_open(browser, url) for _ in range(runs)]
    paint_ms, data_ms = (median([each[place] for each in seen]) for place in (0, 1))
    return Row(
        work=f"the page in Chromium, {count:,} finished runs: first paint",
        ours=Figure(value=paint_ms, unit="ms"),
        reference="–",
        against=Figure(value=data_ms, unit="ms", about="first data"),
        note="With an empty browser cache. First data is the frame that shows the list.",
    )


def _open(browser: Browser, url: str) -> tuple[float, float]:
    """Returns the times until the first paint and until the first run is shown, in ms."""
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script(_WATCH)
    page.goto(url)
    page.locator(".rows > li").first.wait_for(timeout=LIMIT_MS)
    paint_ms, data_ms = page.evaluate(_SEEN)
    context.close()
    return paint_ms, data_ms
