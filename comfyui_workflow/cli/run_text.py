"""Text about a run: its current step, duration and outcome. Used by all displays."""

from datetime import datetime, timedelta

from comfyui_workflow.client.documents import NodeDocument, ProgressDocument
from comfyui_workflow.runs.status import NodeStatus, Phase, RunStatus

_PHASES = {
    Phase.WAITING: "Waiting",
    Phase.CONNECTING: "Connecting to the instance",
    Phase.PROVISIONING: "Installing what the instance lacks",
    Phase.UPLOADING: "Uploading",
    Phase.SUBMITTING: "Submitting the prompt",
    Phase.QUEUED: "Waiting in the queue of the instance",
    Phase.EXECUTING: "Running",
    Phase.DOWNLOADING: "Fetching the outputs",
    Phase.DELIVERING: "Uploading the outputs",
    Phase.FINISHED: "Finished",
}


def now_sentence(progress: ProgressDocument) -> str:
    """Returns the current step of the run."""
    if progress.status.is_finished:
        return end_sentence(progress)
    sentence = plain(progress.message or _PHASES[progress.phase])
    return f"{sentence}, {progress.queue_position} ahead" if progress.queue_position else sentence


def end_sentence(progress: ProgressDocument) -> str:
    """Returns the outcome of a finished run."""
    why = f": {plain(progress.error_message)}" if progress.error_message else ""
    match progress.status:
        case RunStatus.COMPLETED:
            return f"Completed in {clock_time(run_time_s(progress))}"
        case RunStatus.CANCELLED:
            return f"Cancelled{why}"
        case _:
            return f"Failed{why}"


def node_name(node: NodeDocument) -> str:
    title = node_title(node)
    return f"{plain(node.node_type)} ({title})" if title else plain(node.node_type)


def node_title(node: NodeDocument) -> str:
    """Returns the title of the node; empty if it equals the class name."""
    title = plain(node.title or "")
    return "" if title.replace(" ", "").lower() == node.node_type.lower() else title


def share_done(progress: ProgressDocument) -> float:
    """Returns the progress, 0 to 1. The steps of running nodes count, so that a long last node moves the bar
    too."""
    if progress.status is RunStatus.COMPLETED:
        return 1.0
    running = sum(node.progress / 100 for node in progress.nodes if node.status is NodeStatus.EXECUTING)
    return min(1.0, (progress.completed_nodes + running) / max(1, progress.total_nodes))


def run_time_s(progress: ProgressDocument, now: datetime | None = None) -> float:
    """Returns the seconds from the order of the run to its end, or to now."""
    until = progress.end_time or now or progress.queue_time
    return max(0.0, (until - progress.queue_time) / timedelta(seconds=1))


def clock_time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def money(cost: float | None) -> str:
    """Formats a cost in the currency of the user; empty if unknown."""
    if cost is None:
        return ""
    return f"{cost:.2f}" if cost >= 1 else f"{cost:.4f}"


def plain(text: str) -> str:
    """Replaces unprintable characters: text from other programs must not move the cursor, change the colour
    or break the line."""
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()
