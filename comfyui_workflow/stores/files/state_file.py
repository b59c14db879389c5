"""State file: a copy of the latest run outside of the data directory, for other programs.

How it works: a thread writes the file, and then pauses for a time that grows with the size of the file. So
the state of a run with thousands of nodes or outputs is not written at each step. The last state is always
written in the end.
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
_BEGINNING = b'{"workflow_id": '


class StateFile:
    """See the module. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._changed = threading.Condition()
        self._shown: Run | None = None
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="state file", daemon=True)
        self._trouble: str | None = None

    def foreign_reason(self) -> str | None:
        """Returns why the existing file is foreign, None if it is a state file. A foreign file must be kept,
        not overwritten. A state file may be incomplete or have NUL bytes after a power cut: it is not
        flushed."""
        if not self.path.is_file() or self.path.is_symlink():
            return None
        try:
            text = self.path.read_bytes().strip(b"\0")
            content = None if not text or text.startswith(_BEGINNING) else json.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            return str(error)
        is_ours = content is None or (isinstance(content, dict) and "workflow_id" in content)
        return None if is_ours else "it is not the state of a workflow"

    def show(self, run: Run) -> None:
        """Schedules the write of a run."""
        with self._changed:
            self._shown = run
            if not self._thread.ident:
                self._thread.start()
            self._changed.notify_all()

    def close(self) -> None:
        """Stops the thread. The last run is on file when this returns."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._thread.ident:
            self._thread.join()

    def _run(self) -> None:
        while (run := self._next()) is not None:
            pause_s = max(SHORTEST_PAUSE_S, self._write(run) / MOST_BYTES_A_SECOND)
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing, pause_s)

    def _next(self) -> Run | None:
        """Waits for the next run to write. Returns None after `close`, if nothing is left to write."""
        with self._changed:
            self._changed.wait_for(lambda: self._shown is not None or self._is_closing)
            run, self._shown = self._shown, None
            return run

    def _write(self, run: Run) -> int:
        """Writes the file and returns its size in bytes. An error is logged once and not raised: no run may
        fail because of the state file."""
        content = json.dumps(progress_document(run)).encode()
        try:
            write_atomically(self.path, content, must_reach_disk=False)
            self._trouble = None
        except OSError as error:
            if self._trouble != str(error):
                log.warning("The state file %s cannot be written: %s", self.path, error.strerror)
            self._trouble = str(error)
        return len(content)
