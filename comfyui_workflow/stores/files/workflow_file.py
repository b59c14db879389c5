"""workflow.json: a workflow that many runs have, written once. Each of their directories has a hard link to
it, so that each is whole by itself and can be moved, and the workflow of ten thousand runs is on the disk
once. At a start it is one object in memory, too. Nobody ever writes into it."""

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
    """For runs that are added at once: one workflow is one object that several of them have."""

    def __init__(self, requests: Sequence[RunRequest], seal: RecordFormat) -> None:
        self._seal = seal
        self._uses = Counter(id(request.workflow) for request in requests)
        self._written: dict[int, Path] = {}

    def write(self, directory: Path, request: RunRequest) -> Path | None:
        """None where no other run has it: then it belongs in the request. Raises: OSError."""
        workflow = id(request.workflow)
        if self._uses[workflow] == 1:
            return None
        path = directory / FILE_NAME
        if workflow not in self._written or not _link(self._written[workflow], path):
            write_new(path, self._seal.seal(encode_workflow(request.workflow)))
            self._written[workflow] = path
        return path


class WorkflowReader:
    """The same file is the same object, and so are files of the same content. Every method may be called from
    any thread."""

    def __init__(self, most: int | None, seal: RecordFormat) -> None:
        """It forgets them all once there are more than so many."""
        self._seal = seal
        self._most = most
        self._lock = threading.Lock()
        self._of_files: dict[tuple[int, ...], Workflow] = {}
        self._of_contents: dict[bytes, Workflow] = {}

    def read(self, directory: Path) -> Workflow | None:
        """None where it is in the request. Raises: StoreError, OSError."""
        path = directory / FILE_NAME
        try:
            status = path.stat(follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(f"its {FILE_NAME} is not a file")
        file = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        with self._lock:
            known = self._of_files.get(file)
        return self._read(path, file) if known is None else known

    def _read(self, path: Path, file: tuple[int, ...]) -> Workflow:
        content = read_regular(path)
        digest = hashlib.sha256(content).digest()
        with self._lock:
            known = self._of_contents.get(digest)
        workflow = decode_workflow(self._seal.unseal(content, path)) if known is None else known
        with self._lock:
            if self._most is not None and len(self._of_files) >= self._most:
                self._of_files.clear()
                self._of_contents.clear()
            self._of_files[file] = self._of_contents[digest] = workflow
        return workflow


def _link(source: Path, path: Path) -> bool:
    """Some file systems have no links, and every one that has them allows only so many of a file. Whatever
    else may be the trouble, writing the file will meet it again."""
    try:
        os.link(source, path, follow_symlinks=False)
    except OSError:
        return False
    return True
