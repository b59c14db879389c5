"""A ComfyUI that knows its node classes only: each directory of node packs has a file `classes` with them.

python main.py --port PORT --base BASE: what a test copies to `main.py` and starts.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BASE = Path(sys.argv[sys.argv.index("--base") + 1]) if "--base" in sys.argv else Path()
PACKS = BASE / "custom_nodes"
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
        "/object_info": CLASSES,
        "/system_stats": {"system": {"argv": sys.argv}},
        "/internal/folder_paths": {"custom_nodes": [str(PACKS)]},
    }


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = answers().get(self.path)
        body = json.dumps(found).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    port = int(sys.argv[sys.argv.index("--port") + 1])
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
