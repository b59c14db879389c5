"""A web server with files, as a user's own: ranges, versions, PUT, credentials, and faults."""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE_BYTES = 64 * 1024


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class FileServer:
    """`faults`: what the next requests meet, in order: a status, or the number of bytes after which the
    connection is cut. `on_request` is called with each one, in its thread, before it is answered."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    has_etags: bool = True
    faults: list[int | str] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    wants: dict[str, str] = field(default_factory=dict)
    """A header that every request must have."""
    asked: list[Asked] = field(default_factory=list)
    on_request: Callable[[Asked], object] = lambda _: None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, method: str, path: str) -> int:
        return sum((each.method, each.path) == (method, path) for each in self.asked)


@contextmanager
def serving_files(**fields: object) -> Iterator[FileServer]:
    state = FileServer(**fields)  # type: ignore[arg-type]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.note()
            fault = self.fault()
            path = asked.path.partition("?")[0]
            if any(self.headers.get(name) != value for name, value in state.wants.items()):
                self.answer(401)
            elif isinstance(fault, int):
                self.answer(fault)
            elif path in state.redirects:
                self.answer(302, {"Location": state.redirects[path]})
            elif path not in state.files:
                self.answer(404)
            else:
                self.send_file(state.files[path], None if fault is None else int(fault.removeprefix("cut ")))

        def do_PUT(self) -> None:
            asked = self.note()
            content = self.rfile.read(int(self.headers["Content-Length"]))
            fault = self.fault()
            if any(self.headers.get(name) != value for name, value in state.wants.items()):
                self.answer(401)
            elif isinstance(fault, int):
                self.answer(fault)
            else:
                with state.lock:
                    state.files[asked.path.partition("?")[0]] = content
                self.answer(201)

        def note(self) -> Asked:
            asked = Asked(self.command, self.path, dict(self.headers))
            with state.lock:
                state.asked.append(asked)
            state.on_request(asked)
            return asked

        def fault(self) -> int | str | None:
            with state.lock:
                return state.faults.pop(0) if state.faults else None

        def send_file(self, content: bytes, cut_after: int | None) -> None:
            etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            versions = {"ETag": etag} if state.has_etags else {}
            if state.has_etags and self.headers.get("If-None-Match") == etag:
                return self.answer(304, versions)
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(wanted[1]) if wanted and self.headers.get("If-Range") in (None, etag) else 0
            if start >= len(content) > 0 and wanted and start:
                return self.answer(416, {"Content-Range": f"bytes */{len(content)}"})
            span = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
            self.send_response(206 if start else 200)
            for name, value in {**versions, **span, "Content-Length": str(len(content) - start)}.items():
                self.send_header(name, value)
            self.end_headers()
            sent = content[start:] if cut_after is None else content[start : start + cut_after]
            for at in range(0, len(sent), PIECE_BYTES):
                self.wfile.write(sent[at : at + PIECE_BYTES])
            if cut_after is not None:
                self.close_connection = True
            return None

        def answer(self, status: int, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
