"""The part of the Hugging Face Hub that its library speaks to for an upload, and the web URLs of files."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_secret_token"


@dataclass
class Hub:
    url: str = ""
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Files by path, by kind and name of the repository: `models/owner/name`."""
    objects: dict[str, bytes] = field(default_factory=dict)
    faults: list[int] = field(default_factory=list)
    """Statuses of the next commits."""
    authorizations: set[str | None] = field(default_factory=set)


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.authorizations.add(self.headers.get("Authorization"))
            found = re.fullmatch(r"/(datasets/)?([\w.-]+/[\w.-]+)/resolve/main/(.+)", self.path)
            files = hub.repos.get(f"{(found[1] or 'models/')}{found[2]}", {}) if found else {}
            content = files.get(found[3]) if found else None
            self.send(404 if content is None else 200, content or b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.send_json(401, {"error": "Invalid user token."})
            api = re.fullmatch(
                r"/api/(models|datasets)/([\w.-]+/[\w.-]+)/(preupload|commit)/(\w+)", self.path
            )
            if api is not None and f"{api[1]}/{api[2]}" not in hub.repos:
                return self.send_json(
                    404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
                )
            if api is not None and api[3] == "preupload":
                return self.preupload(json.loads(body))
            if api is not None:
                return self.commit(f"{api[1]}/{api[2]}", body)
            if self.path.endswith("/info/lfs/objects/batch"):
                return self.batch(json.loads(body))
            return self.send_json(200, {})

        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            hub.objects[self.path.rpartition("/")[2]] = content
            self.send(200, b"")

        def preupload(self, asked: dict[str, Any]) -> None:
            modes = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["path"].endswith(".png") else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for each in asked["files"]
            ]
            self.send_json(200, {"files": modes})

        def batch(self, asked: dict[str, Any]) -> None:
            objects = [
                {**each, "actions": {"upload": {"href": f"{hub.url}/objects/{each['oid']}"}}}
                for each in asked["objects"]
            ]
            answer = {"transfer": "basic", "objects": objects}
            self.send_json(200, answer, {"Content-Type": "application/vnd.git-lfs+json"})

        def commit(self, repo: str, body: bytes) -> None:
            files = hub.repos[repo]
            if hub.faults:
                return self.send_json(hub.faults.pop(0), {"error": "the hub is busy"})
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    content = hub.objects[value["oid"]]
                    assert hashlib.sha256(content).hexdigest() == value["oid"]
                    files[value["path"]] = content
            url = f"{hub.url}/{repo.removeprefix('models/')}/commit/{'0' * 40}"
            return self.send_json(
                200, {"success": True, "commitOid": "0" * 40, "commitUrl": url, "hookOutput": ""}
            )

        def send_json(self, status: int, answer: object, headers: dict[str, str] | None = None) -> None:
            self.send(
                status, json.dumps(answer).encode(), {"Content-Type": "application/json", **(headers or {})}
            )

        def send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
