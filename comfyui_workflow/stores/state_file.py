"""The file outside of the data directory that mirrors the latest run, for other programs to read."""

import json
import logging
from pathlib import Path

from comfyui_workflow.runs.document import progress_document
from comfyui_workflow.runs.model import Run
from comfyui_workflow.stores.atomic import write_atomically

log = logging.getLogger(__name__)


class StateFile:
    """Not to be used by two threads at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
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

    def write(self, run: Run) -> None:
        """Trouble is logged once: the state file is worth no run."""
        try:
            write_atomically(self.path, json.dumps(progress_document(run)).encode())
            self._trouble = None
        except OSError as error:
            if self._trouble != str(error):
                log.warning("The state file %s cannot be written: %s", self.path, error.strerror)
            self._trouble = str(error)
