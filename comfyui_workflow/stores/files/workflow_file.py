"""workflow.json: the workflow of several runs, written once. The directory of each run has a hard link to it,
so each directory is complete and can be moved, and the workflow of ten thousand runs is on disk once. At a
start it is one object in memory too. The file is never changed."""

import hashlib
import os
import stat
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from comfyui_workflow.errors import StoreError
from comfyui_workflow.files.atomic_write import read_regular, write_new
from comfyui_workflow.runs.codec import decode_workflow, encode_workflow
from comfyui_workflow.runs.model import RunRequest
from comfyui_workflow.stores.files.record_format import RecordFormat
from comfyui_workflow.workflows.model import Workflow

FILE_NAME = "workflow.json"


class WorkflowWriter:
    """Writes the workflows of runs that are added together. Runs with the same workflow share one object."""

    def __init__(self, requests: Sequence[RunRequest], seal: RecordFormat) -> None:
        self._seal = seal
        self._uses = Counter(id(request.workflow) for request in requests)
        self._written: dict[int, Path] = {}

    def write(self, directory: Path, request: RunRequest) -> Path | None:
        """Writes or links workflow.json. Returns None if no other run has the workflow: then it belongs into
        the request. Raises: OSError."""
        workflow = id(request.workflow)
        if self._uses[workflow] == 1:
            return None
        path = directory / FILE_NAME
        if workflow not in self._written or not _link(self._written[workflow], path):
            write_new(path, self._seal.seal(encode_workflow(request.workflow)))
            self._written[workflow] = path
        return path


class WorkflowReader:
    """Reads workflows. The same file, or files with the same content, give the same object. Thread-safe."""

    def __init__(self, most: int | None, seal: RecordFormat) -> None:
        """`most` is the maximum number of cached files; when it is reached, the cache is cleared."""
        self._seal = seal
        self._max_files = most
        self._lock = threading.Lock()
        self._by_file: dict[tuple[int, ...], Workflow] = {}
        self._by_digest: dict[bytes, Workflow] = {}

    def read(self, directory: Path) -> Workflow | None:
        """Reads workflow.json. Returns None if the workflow is in the request. Raises: StoreError,
        OSError."""
        path = directory / FILE_NAME
        try:
            status = path.stat(follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(f"its {FILE_NAME} is not a file")
        file = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        with self._lock:
            known = self._by_file.get(file)
        return self._read(path, file) if known is None else known

    def _read(self, path: Path, file: tuple[int, ...]) -> Workflow:
        content = read_regular(path)
        digest = hashlib.sha256(content).digest()
        with self._lock:
            known = self._by_digest.get(digest)
        workflow = decode_workflow(self._seal.unseal(content, path)) if known is None else known
        with self._lock:
            if self._max_files is not None and len(self._by_file) >= self._max_files:
                self._by_file.clear()
                self._by_digest.clear()
            self._by_file[file] = self._by_digest[digest] = workflow
        return workflow


def _link(source: Path, path: Path) -> bool:
    """Tries to make a hard link. Returns False on every error: some file systems have no hard links, others
    limit their number per file. Another cause also makes the following write of the file fail."""
    try:
        os.link(source, path, follow_symlinks=False)
    except OSError:
        return False
    return True
