"""A web server with files, as a host of models is one: ranges, redirects, tokens; and what goes wrong."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(kw_only=True)
class ServedFile:
    content: bytes
    token: str | None = None
    """The answer is 401 without it."""
    status: int | None = None
    location: str | None = None
    """A redirect to there."""
    headers: dict[str, str] = field(default_factory=dict)
    announced: int | None = None
    """A wrong Content-Length."""
    cut_after: int | None = None
    """Each answer is cut after so many bytes."""
    cuts: int = 1_000_000
    """The number of answers that are cut."""
    takes_ranges: bool = True
    etag: str | None = '"1"'
    content_type: str = "application/octet-stream"
    pause: threading.Event | None = None
    """After half of the file, the server waits for it."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    method: str
    path: str
    range: str | None
    authorization: str | None


class FileServer:
    def __init__(self) -> None:
        self.files: dict[str, ServedFile] = {}
        self.asked: list[Asked] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"

    def url(self, path: str) -> str:
        return f"{self.origin}/{path}"

    def gets(self, path: str) -> list[Asked]:
        return [each for each in self.asked if each.path == f"/{path}" and each.method == "GET"]

    @contextmanager
    def running(self) -> Iterator["FileServer"]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            for file in self.files.values():
                if file.pause is not None:
                    file.pause.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join(10)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server._answer(self)

            def do_HEAD(self) -> None:
                server._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        path, headers = request.path, request.headers
        self.asked.append(
            Asked(
                method=request.command,
                path=path,
                range=headers.get("Range"),
                authorization=headers.get("Authorization"),
            )
        )
        file = self.files.get(path.lstrip("/"))
        if file is None:
            request.send_error(404)
        elif file.token is not None and headers.get("Authorization") != f"Bearer {file.token}":
            request.send_error(401)
        elif file.status is not None:
            request.send_error(file.status)
        elif file.location is not None:
            self._redirect(request, file)
        else:
            self._send(request, file)

    def _redirect(self, request: BaseHTTPRequestHandler, file: ServedFile) -> None:
        request.send_response(302)
        request.send_header("Location", file.location or "")
        for name, value in file.headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def _send(self, request: BaseHTTPRequestHandler, file: ServedFile) -> None:
        size, start = len(file.content), 0
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range") or "")
        condition = request.headers.get("If-Range")
        if wanted and file.takes_ranges and condition in (None, file.etag):
            start = int(wanted[1])
            if start >= size:
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{size}")
                request.send_header("Content-Length", "0")
                request.end_headers()
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        else:
            request.send_response(200)
        request.send_header("Content-Length", str((file.announced or size) - start))
        request.send_header("Content-Type", file.content_type)
        if file.etag:
            request.send_header("ETag", file.etag)
        for name, value in file.headers.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "GET":
            self._send_body(request, file, start)

    def _send_body(self, request: BaseHTTPRequestHandler, file: ServedFile, start: int) -> None:
        content = file.content[start:]
        is_cut = file.cut_after is not None and file.cuts > 0
        if is_cut:
            content, file.cuts = content[: file.cut_after], file.cuts - 1
        half = len(content) // 2
        try:
            request.wfile.write(content[:half])
            request.wfile.flush()
            if file.pause is not None:
                file.pause.wait(60)
            request.wfile.write(content[half:])
        except OSError:
            return
        request.close_connection = True


def wait_until(is_true: object, limit_s: float = 20.0) -> None:
    end_s = time.monotonic() + limit_s
    while not is_true():  # type: ignore[operator]
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.01)
