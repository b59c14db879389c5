"""Starts the server with a wall clock that can jump: a file contains its offset in seconds.

python -m tests.chaos.clocked_server CLOCK_FILE
"""

import json
import sys
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

from comfyui_workflow import app
from comfyui_workflow.server import http
from comfyui_workflow.stores import journal


class JumpingClock:
    def __init__(self, file: Path) -> None:
        self._file = file

    def now(self, zone: tzinfo) -> datetime:
        ahead_s = json.loads(self._file.read_text()) if self._file.exists() else 0
        return datetime.now(zone) + timedelta(seconds=ahead_s)


if __name__ == "__main__":
    journal.datetime = JumpingClock(Path(sys.argv[1]))  # type: ignore[misc, assignment]
    http.main(app.create_server)
