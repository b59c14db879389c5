"""A real browser for tests of the page and of attacks by pages of other sites.

`require_chromium()` skips the test if Chromium is not installed, and fails it if CI=true.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = "/usr/bin/chromium"
FOREIGN_NAMES = ("other.example", "evil.example", "localhost.evil.example")
"""Host names that the browser resolves to 127.0.0.1, without DNS, so that no request leaves this machine."""
START_LIMIT_MS = 60_000
_QUIET = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
]


def require_chromium() -> None:
    if Path(CHROMIUM).exists():
        return
    reason = f"no {CHROMIUM} here: tests/install_system_packages.sh installs it"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def running_chromium() -> Iterator[Browser]:
    require_chromium()
    rules = ", ".join(f"MAP {name} 127.0.0.1" for name in FOREIGN_NAMES)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[*_QUIET, f"--host-resolver-rules={rules}"],
            timeout=START_LIMIT_MS,
        )
        yield browser
        browser.close()


@contextmanager
def running_site() -> Iterator[int]:
    """Starts a web server with an empty page for all host names; yields its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _EmptyPage)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join(5)


class _EmptyPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        content = b"<!doctype html><link rel=icon href=data:,><title>a site</title><body></body>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass
