"""Jobs as JSON files: `DATA_DIR/jobs/<run_id>.json`, all of them in memory too: they are small, and
each is gone after its time."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from comfyui_workflow.errors import ConfigurationError, JobNotFound, StoreError
from comfyui_workflow.runs.job import Job, decode_job, encode_job, record_name
from comfyui_workflow.stores.files.atomic_write import make_private_directory, write_atomically
from comfyui_workflow.stores.files.record_format import Seal
from comfyui_workflow.stores.files.run_directory import keep_aside, read_sealed

log = logging.getLogger(__name__)

_STRIPES = 64


class JobFiles:
    """Every method may be called from any thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._aside = directory / "set-aside"
        self._seal = Seal(directory.parent)
        self._damaged: dict[str, str] = {}
        self._jobs: dict[str, Job] = {}
        self._of_runs: dict[str, str] = {}
        self._index = threading.Lock()
        self._locks = [threading.Lock() for _ in range(_STRIPES)]

    def open(self) -> None:
        """Reads all there are; what cannot be read is left where it is, until it is mended.
        Raises: ConfigurationError, also where a newer release has written one."""
        try:
            make_private_directory(self._directory)
            paths = sorted(self._directory.glob("comfyui_workflow_*.json"))
        except OSError as error:
            raise ConfigurationError(f"{self._directory} cannot be used: {error.strerror}") from error
        for path in paths:
            try:
                job = decode_job(read_sealed(path, self._seal))
                if record_name(job.job_id) != path.stem:
                    raise StoreError("it is the record of another job")
                self._hold(job)
            except (OSError, StoreError) as error:
                self._damaged[path.stem] = str(error)

    @property
    def damaged(self) -> dict[str, str]:
        """Reasons by the names of the records that cannot be read, which are the ids of their runs."""
        return dict(self._damaged)

    def path_of(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    def mend(self, job: Job) -> None:
        """In place of a damaged record, which is kept aside. Where the disk does not take it, it is known all
        the same, and the next start makes it anew again."""
        path = self._path(job.job_id)
        keep_aside(path, self._aside, self._damaged.pop(path.stem, ""), path.name)
        try:
            self._write(job)
        except StoreError as error:
            log.error("%s: %s", job.job_id, error)
        self._hold(job)

    def add(self, job: Job) -> None:
        """On disk when this returns. Raises: StoreError."""
        self._write(job)
        self._hold(job)

    def get(self, job_id: str) -> Job:
        """Raises: JobNotFound."""
        job = self._jobs.get(record_name(job_id))
        if job is None:
            raise JobNotFound(f"Job not found: {job_id[:100]}")
        return job

    def of_run(self, run_id: str) -> Job | None:
        """The job that this run carries out."""
        name = self._of_runs.get(run_id)
        return None if name is None else self._jobs.get(name)

    def all(self) -> list[Job]:
        with self._index:
            return list(self._jobs.values())

    def update(self, job_id: str, change: Callable[[Job], Job]) -> Job:
        """No two changes of one job overlap. Raises: JobNotFound; StoreError, then nothing was changed."""
        with self._lock(job_id):
            before = self.get(job_id)
            changed = change(before)
            if changed != before:
                self._write(changed)
                self._hold(changed)
        return changed

    def remove(self, job_id: str) -> None:
        """Raises: StoreError."""
        with self._lock(job_id):
            try:
                self._path(job_id).unlink(missing_ok=True)
            except OSError as error:
                raise StoreError(f"The job cannot be removed: {error.strerror}") from error
            with self._index:
                removed = self._jobs.pop(record_name(job_id), None)
                if removed is not None:
                    self._of_runs.pop(removed.run_id, None)

    def _hold(self, job: Job) -> None:
        with self._index:
            known = self._jobs.get(record_name(job.job_id))
            if known is not None:
                self._of_runs.pop(known.run_id, None)
            self._jobs[record_name(job.job_id)] = job
            self._of_runs[job.run_id] = record_name(job.job_id)

    def _write(self, job: Job) -> None:
        try:
            write_atomically(self._path(job.job_id), self._seal.seal(encode_job(job)))
        except OSError as error:
            raise StoreError(f"The job cannot be saved: {error.strerror}") from error

    def _lock(self, job_id: str) -> threading.Lock:
        return self._locks[hash(record_name(job_id)) % _STRIPES]

    def _path(self, job_id: str) -> Path:
        return self.path_of(record_name(job_id))
