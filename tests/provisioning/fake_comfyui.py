"""A ComfyUI that knows its node classes and its files only: each directory of node packs has a file `classes`
with them.

python main.py --port PORT --base BASE: what a test copies to `main.py` and starts.
"""

import json
import re
import shutil
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

BASE = Path(sys.argv[sys.argv.index("--base") + 1]) if "--base" in sys.argv else Path()
PACKS = BASE / "custom_nodes"
TEMP = BASE / "temp"
FOUND = [
    name
    for file in PACKS.glob("*/classes")
    if not file.parent.name.endswith(".disabled")
    for name in file.read_text().split()
]
"""Read at the start only, as ComfyUI does."""
CLASSES = {
    name: {"input": {"required": {}}, "output": ["IMAGE"], "output_node": True} for name in ["Own", *FOUND]
}


def answers() -> dict[str, object]:
    queued = (BASE / "queued").exists()
    return {
        "/prompt": {"exec_info": {"queue_remaining": int(queued)}},
        "/queue": {"queue_running": [], "queue_pending": []},
        "/object_info": CLASSES,
        "/system_stats": {"system": {"argv": sys.argv, "comfyui_version": "0.33.0"}, "devices": []},
        "/internal/folder_paths": {
            "custom_nodes": [str(PACKS)],
            "checkpoints": [str(BASE / "models" / "checkpoints")],
            "loras": [str(BASE / "models" / "loras")],
        },
    }


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer(answers().get(self.path))

    def do_HEAD(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        name = Path(query.get("filename", ["."])[0]).name
        self.send_response(200 if name and (TEMP / name).exists() else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        """Takes an upload to the temp directory; its content does not matter."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        name = re.search(rb'filename="([^"/]+)"', body)
        if self.path != "/upload/image" or name is None:
            self.answer(None)
            return
        (TEMP / name[1].decode()).touch()
        self.answer({"name": name[1].decode(), "subfolder": "", "type": "temp"})

    def answer(self, found: object) -> None:
        body = json.dumps(found).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    shutil.rmtree(TEMP, ignore_errors=True)
    TEMP.mkdir(parents=True)
    port = int(sys.argv[sys.argv.index("--port") + 1])
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
