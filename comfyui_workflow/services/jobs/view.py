"""A job with its run, as both were at one moment: its status and its output files, in no API's words."""

from dataclasses import dataclass
from pathlib import Path

from comfyui_workflow.runs.job import Job, JobStatus, status_of
from comfyui_workflow.runs.model import Run, RunStatus

_ENDS = {RunStatus.COMPLETED: JobStatus.SUCCEEDED, RunStatus.CANCELLED: JobStatus.CANCELLED}


@dataclass(frozen=True, kw_only=True)
class JobView:
    job: Job
    run: Run

    @property
    def status(self) -> JobStatus:
        return status_of(self.job, self.run)


@dataclass(frozen=True, kw_only=True)
class DeliveredFile:
    """One file: at `url`, or else at `path` on this machine."""

    filename: str
    path: Path
    url: str | None = None


@dataclass(frozen=True, kw_only=True)
class Output:
    files: tuple[DeliveredFile, ...]
    errors: tuple[str, ...]
    """Sentences about what went wrong and was not fatal."""


def final_status(run: Run) -> JobStatus:
    """The status of a job whose run has ended, where no verdict says otherwise."""
    return _ENDS.get(run.status, JobStatus.FAILED)


def has_output(view: JobView) -> bool:
    """Also true of a job that has failed, where files were made before."""
    if view.status is JobStatus.SUCCEEDED:
        return True
    return view.status is JobStatus.FAILED and any(output.is_downloaded for output in view.run.outputs)


def output_of(view: JobView) -> Output:
    files, errors = list[DeliveredFile](), list(view.run.notices)
    uploads = {upload.number: upload for upload in view.job.uploads}
    for number, output in enumerate(view.run.outputs):
        upload = uploads.get(number)
        if output.local_path is None:
            errors.append(f"Failed to fetch {output.filename}: {output.error or 'it did not come'}")
        elif upload is not None and upload.error is not None:
            errors.append(upload.error)
        else:
            url = upload.url if upload else None
            files.append(DeliveredFile(filename=output.filename, path=Path(output.local_path), url=url))
    return Output(files=tuple(files), errors=tuple(errors))
