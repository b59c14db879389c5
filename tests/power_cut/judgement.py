"""Checks which answers are still true after a power cut."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import requests

from comfyui_workflow.comfyui.queue import CORRELATION_KEY
from tests.chaos.trial import Trial, wait_until
from tests.delivery.receiver import Receiver
from tests.power_cut.orders import Ledger
from tests.server_process import FINISHED, Json, ServerProcess

FEW = 3
SETTLED_WITHIN_S = 60.0
WEBHOOK_WITHIN_S = 20.0


class Kind(StrEnum):
    """The promises that can be broken, in the words of the table."""

    REFUSED = "not as ordered, before the cut"
    NO_START = "the server does not start"
    SET_ASIDE = "record damaged"
    COMPLAINT = "the server logs an error at its start"
    RUN_LOST = "accepted run gone"
    BATCH_LOST = "batch gone"
    UPLOAD_LOST = "upload gone or not whole"
    INSTANCE_LOST = "named instance gone, or its price"
    OUTPUT_LOST = "output of a run that was completed gone or not whole at the cut"
    TAKEN_BACK = "run that was completed is so no more"
    OUTPUT_UNTRUE = "output said to be here is not, or not whole"
    STRAY = "output file of which no run tells"
    TWICE = "prompt executed twice"
    CANCELLED = "run cancelled that nobody cancelled"
    FAILED = "run failed"
    UNENDED = "run does not end"
    CANCEL_FORGOTTEN = "cancelled run executed after the cut"
    WEBHOOK_LOST = "webhook of a job not sent"
    LIST_UNTRUE = "list of runs says otherwise than the run"
    PRIORITY_FORGOTTEN = "priority forgotten"


@dataclass(frozen=True, kw_only=True)
class Finding:
    kind: Kind
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


def sentences_of(findings: Sequence[Finding]) -> Iterator[str]:
    """A few of each kind, and how many more there are."""
    for kind in Kind:
        of_kind = [finding for finding in findings if finding.kind is kind]
        yield from map(str, of_kind[:FEW])
        if len(of_kind) > FEW:
            yield f"{kind}: and {len(of_kind) - FEW} more"


def kind_of(sentence: str) -> Kind | None:
    """Returns the kind of a finding, from its text."""
    return next((kind for kind in Kind if sentence.startswith(f"{kind}: ")), None)


def found_on_disk(trial: Trial, ledger: Ledger) -> Iterator[Finding]:
    """Before any server starts on it: what needs no server, nor the instance, to be there."""
    for sentence in ledger.refused:
        yield Finding(kind=Kind.REFUSED, what=sentence)
    for path, content in ledger.uploads.items():
        if (trouble := _difference(path, content)) is not None:
            yield Finding(kind=Kind.UPLOAD_LOST, what=f"{path.name} {trouble}")
    for run_id, outputs in ledger.completed.items():
        for output in outputs:
            trouble = _difference(Path(output["local_path"]), trial.remote(output).read_bytes())
            if trouble is not None:
                yield Finding(kind=Kind.OUTPUT_LOST, what=f"{output['filename']} of {run_id} {trouble}")


def found_at_the_start(server: ServerProcess, ledger: Ledger, log_begins_at: int) -> Iterator[Finding]:
    """Returns as soon as the server answers."""
    for run_id in ledger.completed:
        progress = _progress(server, run_id)
        if progress is not None and progress["status"] != "completed":
            yield Finding(kind=Kind.TAKEN_BACK, what=f"{run_id} is {progress['status']}")
    for run_id, priority in ledger.priorities.items():
        progress = _progress(server, run_id)
        if progress is not None and progress["priority"] != priority:
            said = f"{run_id} has {progress['priority']}, not {priority}"
            yield Finding(kind=Kind.PRIORITY_FORGOTTEN, what=said)
    accepted = set(ledger.every_run)
    for path in (server.data_dir / "runs" / "set-aside").glob("*"):
        if path.name.rpartition("-")[0] in accepted:
            yield Finding(kind=Kind.SET_ASIDE, what=path.name)
    for line in server.log_file.read_text()[log_begins_at:].splitlines():
        if " ERROR " in line and not _is_of_what_was_never_accepted(line, accepted):
            yield Finding(kind=Kind.COMPLAINT, what=line)


def _is_of_what_was_never_accepted(line: str, accepted: set[str]) -> bool:
    """A record that was half made is set aside: nothing was promised of it."""
    return "Set aside" in line and not any(run_id in line for run_id in accepted)


def found_in_the_end(trial: Trial, ledger: Ledger, cuts_s: Sequence[float]) -> Iterator[Finding]:
    """When every run has ended, or does not. `cuts_s` are the moments of the cuts."""
    every_run = ledger.every_run
    _wait_for_all(trial, every_run)
    for run_id in every_run:
        yield from _found_of_run(trial, ledger, run_id, cuts_s)
    yield from _found_of_executions(trial)
    for batch_id in ledger.batches:
        if not _is_answered(trial.server.url + f"/batch/{batch_id}/progress"):
            yield Finding(kind=Kind.BATCH_LOST, what=batch_id)
    root = trial.server.url.removesuffix("/comfyui/workflow")
    for name, prices in ledger.instances.items():
        answer = requests.get(f"{root}/comfyui/instances/{name}", timeout=30)
        found = answer.json()["instance"]["price_per_hour"] if answer.ok else None
        if found not in prices:
            yield Finding(kind=Kind.INSTANCE_LOST, what=f"{name} at {prices}: {found or answer.status_code}")
    yield from _found_of_webhooks(trial, ledger)
    yield from _found_of_lists(trial.server)
    for job_id in ledger.jobs:
        if _progress(trial.server, job_id) and not _is_answered(f"{root}/v2/any/status/{job_id}"):
            yield Finding(kind=Kind.RUN_LOST, what=f"{job_id}, as a job")


def found_strays(server: ServerProcess, output_dirs: tuple[Path, ...]) -> Iterator[Finding]:
    """Files that a person finds among the outputs, and no run of the server tells of."""
    told = {
        output["local_path"]
        for line in _every_line(server)
        if (progress := _progress(server, line["workflow_id"])) is not None
        for output in progress["outputs"]
    }
    for directory in output_dirs:
        for path in directory.rglob("*"):
            if path.is_file() and str(path) not in told:
                yield Finding(kind=Kind.STRAY, what=f"{path.name}, {path.stat().st_size} bytes")


def _every_line(server: ServerProcess) -> Iterator[Json]:
    """Waits for all runs of the list, including those whose orders were never answered."""
    before = ""
    while page := server.get(f"?limit=100{before}")["workflows"]:
        yield from page
        before = f"&before={page[-1]['workflow_id']}"


def _wait_for_all(trial: Trial, every_run: list[str]) -> None:
    """Also waits for runs in the list whose orders were never answered: they are executed too."""
    waiting = set(every_run)

    def are_all_over() -> bool:
        for run_id in list(waiting):
            progress = _progress(trial.server, run_id)
            if progress is None or progress["status"] in FINISHED:
                waiting.discard(run_id)
        are_listed_over = all(line["status"] in FINISHED for line in _every_line(trial.server))
        return not waiting and are_listed_over and _is_idle(trial)

    with contextlib.suppress(AssertionError):  # what does not end is found and said
        wait_until(are_all_over, SETTLED_WITHIN_S, "not all runs end")


def _is_idle(trial: Trial) -> bool:
    queue: Json = requests.get(f"{trial.sandbox.comfyui_url}/queue", timeout=10).json()
    return not queue["queue_running"] and not queue["queue_pending"]


def _found_of_run(trial: Trial, ledger: Ledger, run_id: str, cuts_s: Sequence[float]) -> Iterator[Finding]:
    progress = _progress(trial.server, run_id)
    if progress is None:
        yield Finding(kind=Kind.RUN_LOST, what=run_id)
        return
    said = f"{run_id}: {progress['error_message'] or progress['message']}"
    match progress["status"]:
        case "completed":
            yield from _found_of_cancel(trial, ledger, run_id, cuts_s)
        case "cancelled":
            if run_id not in ledger.asked_to_end:
                yield Finding(kind=Kind.CANCELLED, what=said)
        case "failed" if run_id not in ledger.failing:
            yield Finding(kind=Kind.FAILED, what=said)
        case status if status not in FINISHED:
            yield Finding(kind=Kind.UNENDED, what=f"{said} ({status})")
    for output in progress["outputs"]:
        if output["downloaded"]:
            trouble = _difference(Path(output["local_path"]), trial.remote(output).read_bytes())
            if trouble is not None:
                what = f"{Path(output['local_path']).name} of {run_id} {trouble}"
                yield Finding(kind=Kind.OUTPUT_UNTRUE, what=what)


def _found_of_cancel(trial: Trial, ledger: Ledger, run_id: str, cuts_s: Sequence[float]) -> Iterator[Finding]:
    """One that was executing when it was cancelled may win that race; but none begins after the power."""
    cancelled_s = ledger.cancelled.get(run_id)
    next_cut_s = next((cut_s for cut_s in cuts_s if cancelled_s is not None and cut_s > cancelled_s), None)
    starts_s = [each["at"] for each in trial.sandbox.executions() if _run_of(each) == run_id]
    if next_cut_s is not None and starts_s and min(starts_s) > next_cut_s:
        yield Finding(kind=Kind.CANCEL_FORGOTTEN, what=run_id)


def _found_of_executions(trial: Trial) -> Iterator[Finding]:
    """Checks all runs, including those whose orders were never answered."""
    times = Counter(map(_run_of, trial.sandbox.executions()))
    for run_id, count in times.items():
        if count > 1:
            yield Finding(kind=Kind.TWICE, what=f"{run_id}, {count} times")


def _found_of_webhooks(trial: Trial, ledger: Ledger) -> Iterator[Finding]:
    """At least once each; of jobs that are there."""
    receiver: Receiver = trial.notes["receiver"]
    missing = {job_id for job_id in ledger.webhooks if _progress(trial.server, job_id) is not None}

    def are_all_heard() -> bool:
        heard = {each.path for each in receiver.heard}
        missing.difference_update([job_id for job_id in missing if ledger.webhooks[job_id] in heard])
        return not missing

    with contextlib.suppress(AssertionError):
        wait_until(are_all_heard, WEBHOOK_WITHIN_S, "not all webhooks are sent")
    for job_id in missing:
        yield Finding(kind=Kind.WEBHOOK_LOST, what=job_id)


def _found_of_lists(server: ServerProcess) -> Iterator[Finding]:
    for line in _every_line(server):
        progress = _progress(server, line["workflow_id"])
        status = "gone" if progress is None else progress["status"]
        if line["status"] != status:
            what = f"{line['workflow_id']} is {line['status']} in the list, and {status}"
            yield Finding(kind=Kind.LIST_UNTRUE, what=what)


def _run_of(execution: Json) -> str:
    return str(execution["extra_data"].get(CORRELATION_KEY, "")).split("/")[0]


def _progress(server: ServerProcess, run_id: str) -> Json | None:
    answer = requests.get(f"{server.url}/{run_id}/progress", timeout=30)
    if answer.status_code == 404:
        return None
    answer.raise_for_status()
    found: Json = answer.json()["progress"]
    return found


def _is_answered(url: str) -> bool:
    return requests.get(url, timeout=30).status_code == 200


def _difference(path: Path, content: bytes) -> str | None:
    """Returns the difference between a file and its expected content."""
    try:
        found = path.read_bytes()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if found == content:
        return None
    if not found:
        return "is empty"
    return f"is wrong: {len(found)} bytes instead of {len(content)}"
