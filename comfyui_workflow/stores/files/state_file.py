"""The file outside of the data directory that mirrors the latest run, for other programs to read.

It is written by a thread of its own, at once and then again after a pause that grows with its size: so a run
with thousands of nodes or outputs is not written anew at each step. Whatever was shown last is written in the
end.
"""

import json
import logging
import threading
from pathlib import Path

from comfyui_workflow.files.atomic_write import write_atomically
from comfyui_workflow.runs.document import progress_document
from comfyui_workflow.runs.model import Run

log = logging.getLogger(__name__)

SHORTEST_PAUSE_S = 0.05
MOST_BYTES_A_SECOND = 50_000


class StateFile:
    """Every method may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._changed = threading.Condition()
        self._shown: Run | None = None
        self._is_closing = False
        self._thread = threading.Thread(target=self._keep_up, name="state file", daemon=True)
        self._trouble: str | None = None

    def why_foreign(self) -> str | None:
        """Why what lies there is not ours, or half of it: to be kept beside the new one, not overwritten."""
        if not self.path.is_file() or self.path.is_symlink():
            return None
        try:
            content = json.loads(self.path.read_bytes() or b"null")
        except (OSError, ValueError, RecursionError) as error:
            return str(error)
        is_ours = content is None or (isinstance(content, dict) and "workflow_id" in content)
        return None if is_ours else "it is not the state of a workflow"

    def show(self, run: Run) -> None:
        """Written soon."""
        with self._changed:
            self._shown = run
            if not self._thread.ident:
                self._thread.start()
            self._changed.notify_all()

    def close(self) -> None:
        """The run that was shown last is written when this returns."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._thread.ident:
            self._thread.join()

    def _keep_up(self) -> None:
        while (run := self._next()) is not None:
            pause_s = max(SHORTEST_PAUSE_S, self._write(run) / MOST_BYTES_A_SECOND)
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing, pause_s)

    def _next(self) -> Run | None:
        """None when there is nothing more to write, ever."""
        with self._changed:
            self._changed.wait_for(lambda: self._shown is not None or self._is_closing)
            run, self._shown = self._shown, None
            return run

    def _write(self, run: Run) -> int:
        """How many bytes. Trouble is logged once: the state file is worth no run."""
        content = json.dumps(progress_document(run)).encode()
        try:
            write_atomically(self.path, content, must_reach_disk=False)
            self._trouble = None
        except OSError as error:
            if self._trouble != str(error):
                log.warning("The state file %s cannot be written: %s", self.path, error.strerror)
            self._trouble = str(error)
        return len(content)
