"""Jobs as JSON files: `DATA_DIR/jobs/<run_id>.json`. All are kept in memory too: they are small, and each is
removed when it expires."""

import logging
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from comfyui_workflow.errors import StoreError
from comfyui_workflow.runs.job import Job, decode_job, encode_job, record_name
from comfyui_workflow.stores.base import UnreadableRecord
from comfyui_workflow.stores.files.record_files import RecordFiles
from comfyui_workflow.stores.files.record_format import RecordFormat
from comfyui_workflow.stores.memory import MemoryJobStore

log = logging.getLogger(__name__)

_STRIPES = 64
_NAME = re.compile("comfyui_workflow_.*", re.DOTALL)


class FileJobStore:
    def __init__(self, directory: Path) -> None:
        self._files = RecordFiles(directory, "job", RecordFormat(directory.parent))
        self._memory = MemoryJobStore()
        self._unreadable: dict[str, UnreadableRecord] = {}
        self._locks = [threading.Lock() for _ in range(_STRIPES)]

    def open(self) -> None:
        """Reads all jobs. An unreadable file stays in its place until it is replaced.
        Raises: ConfigurationError, also if a newer release has written a record."""
        self._files.open()
        for name, read in self._files.read_all(_NAME, decode_job, lambda job: record_name(job.job_id)):
            if isinstance(read, UnreadableRecord):
                self._unreadable[name] = read
            else:
                self._memory.add(read)

    @property
    def unreadable(self) -> Mapping[str, UnreadableRecord]:
        return dict(self._unreadable)

    def replace_unreadable(self, job: Job) -> None:
        """Replaces an unreadable job; the damaged file is kept in quarantine."""
        damaged = self._unreadable.pop(record_name(job.job_id), None)
        if damaged is not None:
            self._files.link_to_quarantine(record_name(job.job_id), damaged.reason)
        try:
            self._write(job)
        except StoreError as error:
            log.error("%s: %s", job.job_id, error)
        self._memory.add(job)

    def add(self, job: Job) -> None:
        self._write(job)
        self._memory.add(job)

    def get(self, job_id: str) -> Job:
        return self._memory.get(job_id)

    def of_run(self, run_id: str) -> Job | None:
        return self._memory.of_run(run_id)

    def all(self) -> list[Job]:
        return self._memory.all()

    def update(self, job_id: str, change: Callable[[Job], Job]) -> Job:
        with self._lock(job_id):
            before = self.get(job_id)
            changed = change(before)
            if changed != before:
                self._write(changed)
                self._memory.add(changed)
        return changed

    def remove(self, job_id: str) -> None:
        with self._lock(job_id):
            self._files.remove(record_name(job_id))
            self._memory.remove(job_id)

    def _write(self, job: Job) -> None:
        self._files.write(record_name(job.job_id), encode_job(job))

    def _lock(self, job_id: str) -> threading.Lock:
        return self._locks[hash(record_name(job_id)) % _STRIPES]
