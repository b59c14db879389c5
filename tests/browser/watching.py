"""Checks for all tests of the page: no errors in the console, no requests to other hosts."""

from collections.abc import Callable
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Error, Page, Request

ABSENCE = ("CONNECTION_REFUSED", "CONNECTION_RESET", "EMPTY_RESPONSE")
"""Console messages of Chromium for requests during and after a kill of the server."""
OWN_SCHEMES = ("blob", "data")


class Watch:
    """Records the console messages and requests of one page from its start."""

    def __init__(self, page: Page) -> None:
        self.troubles: list[str] = []
        self.asked: list[str] = []
        self._allowances: list[Callable[[ConsoleMessage], bool]] = []
        page.on("console", self._hear)
        page.on("pageerror", self._fail)
        page.on("request", self._note)
        page.on("websocket", lambda socket: self.asked.append(socket.url))

    def allow(self, text: str, path: str = "") -> None:
        """Allows console messages with this beginning, about addresses whose path has this beginning."""
        self._allowances.append(
            lambda message: (
                message.text.startswith(text) and urlsplit(message.location["url"]).path.startswith(path)
            )
        )

    def allow_status(self, status: int, path: str) -> None:
        """Chromium logs an error for every response with status 4xx or 5xx, even if the page handles it."""
        self.allow(f"Failed to load resource: the server responded with a status of {status} ", path)

    def allow_absence(self) -> None:
        for name in ABSENCE:
            self.allow(f"Failed to load resource: net::ERR_{name}")

    def forget_hosts(self) -> None:
        """Allows requests to another host, for a test that opens it."""
        self.asked.clear()

    def check(self) -> None:
        assert not self.troubles, "\n".join(self.troubles)
        hosts = {urlsplit(url).netloc for url in self.asked if urlsplit(url).scheme not in OWN_SCHEMES}
        assert len(hosts) <= 1, hosts
        assert all(host.startswith("127.0.0.1:") for host in hosts), hosts

    def _hear(self, message: ConsoleMessage) -> None:
        is_allowed = any(allows(message) for allows in self._allowances)
        if message.type in ("error", "warning") and not is_allowed:
            self.troubles.append(f"{message.type}: {message.text} ({message.location['url']})")

    def _fail(self, error: Error) -> None:
        self.troubles.append(f"not caught: {error}")

    def _note(self, request: Request) -> None:
        self.asked.append(request.url)
