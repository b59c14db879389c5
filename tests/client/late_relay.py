"""Relay to a ComfyUI that delays the first prompt until the second one arrives."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import requests


class LateRelay:
    def __init__(self, comfyui_url: str) -> None:
        self.prompts = 0
        self._late: bytes | None = None
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.command == "POST" and self.path == "/prompt" and not relay.lets_pass(body):
                    self.close_connection = True
                    return
                answer = requests.request(self.command, comfyui_url + self.path, data=body, timeout=10)
                self.send_response(answer.status_code)
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            do_POST = do_GET  # noqa: N815 - as the base class wants it called

            def log_message(self, *_: object) -> None: ...

        self._comfyui_url = comfyui_url
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def lets_pass(self, body: bytes) -> bool:
        self.prompts += 1
        if self.prompts == 1:
            self._late = body
            return False
        if self._late is not None:
            requests.post(f"{self._comfyui_url}/prompt", data=self._late, timeout=10)
            self._late = None
        return True

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()
