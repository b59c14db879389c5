"""Text about a batch: its progress, and the outcome of each run."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from comfyui_workflow.cli.batch_follow import RunNames
from comfyui_workflow.cli.run_text import clock_time, money, plain
from comfyui_workflow.client.batch_documents import (
    BatchOutputDocument,
    BatchProgressDocument,
    BatchRunDocument,
)
from comfyui_workflow.client.documents import SummaryDocument
from comfyui_workflow.runs.status import Phase, RunStatus

COLOURS = {RunStatus.COMPLETED: "green", RunStatus.FAILED: "red", RunStatus.CANCELLED: "yellow"}
_STATES = {RunStatus.EXECUTING: "running", RunStatus.QUEUED: "waiting"}
_IN_ORDER = (
    RunStatus.COMPLETED,
    RunStatus.FAILED,
    RunStatus.CANCELLED,
    RunStatus.EXECUTING,
    RunStatus.QUEUED,
)
_LONGEST_VALUE = 40
_ENDED = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)


def ended(progress: BatchProgressDocument) -> int:
    return progress.count(*_ENDED)


def counts_sentence(progress: BatchProgressDocument) -> str:
    """`12 completed, 2 failed, 4 running, 42 waiting`."""
    counted = ((progress.count(status), _STATES.get(status, status.value)) for status in _IN_ORDER)
    return ", ".join(f"{count} {state}" for count, state in counted if count)


def cost_sentence(progress: BatchProgressDocument) -> str:
    """Returns GPU time and cost; empty before the first execution."""
    if not progress.gpu_seconds:
        return ""
    seconds = f"{progress.gpu_seconds:.1f} GPU seconds"
    if progress.cost is None:
        return seconds
    unpriced = progress.unpriced_runs
    runs = "1 run" if unpriced == 1 else f"{unpriced} runs"
    but = f" without {runs} of unknown price" if unpriced else ""
    return f"{seconds}, cost {money(progress.cost)}{but}"


def end_sentence(progress: BatchProgressDocument) -> str:
    """Returns a summary of the batch, so far or at its end."""
    cost = cost_sentence(progress)
    took = ""
    if progress.end_time:
        took = f" in {clock_time((progress.end_time - progress.queue_time) / timedelta(seconds=1))}"
    return f"{counts_sentence(progress)}{took}{'; ' if cost else ''}{cost}"


def format_inputs(inputs: Mapping[str, Any]) -> str:
    return ", ".join(f"{plain(name)}={_cut(plain(str(value)))}" for name, value in inputs.items())


def format_running(run: SummaryDocument) -> tuple[str, str]:
    """Returns where the run executes, and its progress with the current node. Outside the execution phase the
    message of the run replaces the node: the instance may be away, or outputs are being downloaded."""
    fields = ("current_node", "message") if run.raw.get("phase") == Phase.EXECUTING else ("message",)
    node = plain(str(next((run.raw[field] for field in fields if run.raw.get(field)), "")))
    where = f"on {plain(run.instance)}" if run.instance else ""
    return where, f"{run.progress_percent:3.0f} % {node}"


def failure_lines(progress: BatchProgressDocument, names: RunNames) -> Iterator[str]:
    """Yields each reason once, with the numbers of the runs that failed for it. The server sends a limited
    number of failures; the rest is counted."""
    runs_of = defaultdict[str, list[int]](list)
    for failure in progress.failures:
        runs_of[plain(failure.error_message or "failed")].append(names.number(failure.workflow_id))
    for reason, numbers in runs_of.items():
        listed = ", ".join(map(str, sorted(numbers)))
        yield f"run{'s' if len(numbers) > 1 else ''} {listed}: {reason}"
    unlisted = progress.count(RunStatus.FAILED) - len(progress.failures)
    if unlisted > 0:
        yield f"and {unlisted} more"


def notice_lines(progress: BatchProgressDocument, names: RunNames) -> Iterator[str]:
    """Yields each notice once, with the numbers of its runs."""
    for notice in progress.notices:
        listed = ", ".join(map(str, sorted(map(names.number, notice.workflow_ids))))
        more = notice.count - len(notice.workflow_ids)
        others = f" and {more} more" if more > 0 else ""
        yield f"run{'s' if notice.count > 1 else ''} {listed}{others}: {plain(notice.message)}"


def batch_table(
    runs: Sequence[BatchRunDocument], outputs: Sequence[BatchOutputDocument], names: RunNames
) -> Table:
    files = defaultdict[str, list[str]](list)
    for output in outputs:
        files[output.workflow_id].append(_file_name(output))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("run", "inputs", "state", "seconds", "cost", "files"):
        justify = "right" if heading in ("run", "seconds", "cost") else "left"
        table.add_column(heading, no_wrap=True, justify=justify)  # type: ignore[arg-type]
    for number, run in enumerate(runs, start=1):
        table.add_row(
            str(number),
            Text(format_inputs(names.inputs(run.workflow_id))),
            Text(_STATES.get(run.status, run.status.value), style=COLOURS.get(run.status, "")),
            f"{run.gpu_seconds:.1f}" if run.gpu_seconds else "",
            money(run.cost) if run.gpu_seconds else "",
            Text(plain(_files(files[run.workflow_id]))),
        )
    return table


def _files(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}" if names else ""


def _file_name(output: BatchOutputDocument) -> str:
    return Path(output.local_path).name if output.local_path else output.filename


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
