"""The server, with a record of what it does to its files, and of what it says meanwhile.

python -m tests.power_cut.recorded_server ROOT RECORD_FILE [busy]
"""

import sys
from pathlib import Path
from typing import Any

from flask import Response, request

from comfyui_workflow import app
from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.comfyui.queue import CORRELATION_KEY
from comfyui_workflow.server import http
from comfyui_workflow.settings import Settings
from tests.power_cut import busy_server
from tests.power_cut.recorder import Recorder


def main(root: Path, record_file: Path) -> None:
    recorder = Recorder(root, record_file)
    recorder.install()
    submit = ComfyUIClient.submit

    def marked_submit(self: ComfyUIClient, graph: Any, **fields: Any) -> Any:
        run_id = fields["extra_data"][CORRELATION_KEY].split("/")[0]
        recorder.mark("posting", prompt_id=fields["prompt_id"], run_id=run_id)
        return submit(self, graph, **fields)

    def mark_answer(response: Response) -> Response:
        if response.is_json and response.status_code < 300:
            body, path = response.get_json(), request.path
            recorder.mark("answered", method=request.method, path=path, body=body)
        return response

    def create_server(settings: Settings) -> app.Server:
        server = app.create_server(settings)
        server.app.after_request(mark_answer)
        return server

    ComfyUIClient.submit = marked_submit  # type: ignore[method-assign]
    http.main(create_server)


if __name__ == "__main__":
    if "busy" in sys.argv[3:]:
        busy_server.set_limits()
    main(Path(sys.argv[1]), Path(sys.argv[2]))
