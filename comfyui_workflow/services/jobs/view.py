"""Snapshot of a job and its run: status and output files, independent of any API format."""

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
    """One output file: at `url` if there is one, otherwise at `path` on this machine."""

    filename: str
    path: Path
    url: str | None = None


@dataclass(frozen=True, kw_only=True)
class Output:
    files: tuple[DeliveredFile, ...]
    errors: tuple[str, ...]
    """Messages about errors that were not fatal: files that are missing."""
    notices: tuple[str, ...]
    """Information about the run that needs no action."""


def final_status(run: Run) -> JobStatus:
    """Returns the status of a job without verdict whose run has ended."""
    return _ENDS.get(run.status, JobStatus.FAILED)


def has_output(view: JobView) -> bool:
    """True if the job succeeded, or if it failed after at least one output was fetched."""
    if view.status is JobStatus.SUCCEEDED:
        return True
    return view.status is JobStatus.FAILED and any(output.is_downloaded for output in view.run.outputs)


def output_of(view: JobView) -> Output:
    """Returns the files of a job, and an error for each output that was not fetched or not uploaded. A file
    that several nodes list is returned once for each of them."""
    files, errors = list[DeliveredFile](), list[str]()
    uploads = {upload.number: upload for upload in view.job.uploads}
    for number, output in enumerate(view.run.outputs):
        upload = uploads.get(number)
        if output.local_path is None:
            errors.append(f"Failed to fetch {output.filename}: {output.error or 'the file was not fetched'}")
        elif upload is not None and upload.error is not None:
            errors.append(upload.error)
        else:
            url = upload.url if upload else output.upload_url
            file = DeliveredFile(filename=output.name, path=Path(output.local_path), url=url)
            files += [file] * (1 + len(output.other_node_ids))
    return Output(files=tuple(files), errors=tuple(errors), notices=view.run.notices)
