"""Notifications: which ends of runs and batches a client wants to hear of, and the content of the messages.
Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from comfyui_workflow.runs.status import RunStatus


class NotifiedEvent(StrEnum):
    """The `type` of a message."""

    RUN_COMPLETED = "run.completed"
    RUN_FAILED = "run.failed"
    RUN_CANCELLED = "run.cancelled"
    BATCH_COMPLETED = "batch.completed"
    """Every run of the batch has ended, in whatever way."""

    @property
    def is_of_run(self) -> bool:
        return self is not NotifiedEvent.BATCH_COMPLETED


RUN_EVENTS = tuple(event for event in NotifiedEvent if event.is_of_run)
_EVENT_OF = {
    RunStatus.COMPLETED: NotifiedEvent.RUN_COMPLETED,
    RunStatus.FAILED: NotifiedEvent.RUN_FAILED,
    RunStatus.CANCELLED: NotifiedEvent.RUN_CANCELLED,
}


@dataclass(frozen=True, kw_only=True)
class WebhookOrder:
    """A webhook as the client ordered it."""

    url: str = field(repr=False)
    events: tuple[NotifiedEvent, ...]
    server_url: str = ""
    """URL under which the client reached this server: the messages contain URLs of outputs below it."""

    def limited_to(self, events: Iterable[NotifiedEvent]) -> "WebhookOrder | None":
        """Returns the order for these events only; None if it is for none of them."""
        wanted = tuple(event for event in self.events if event in tuple(events))
        if not wanted:
            return None
        return WebhookOrder(url=self.url, events=wanted, server_url=self.server_url)


def event_of(status: RunStatus) -> NotifiedEvent | None:
    """Returns the event of a run with this status; None for an unfinished run."""
    return _EVENT_OF.get(status)


SYSTEM_EVENTS = (
    "status",
    "progress",
    "progress_state",
    "executing",
    "execution_start",
    "execution_cached",
    "executed",
    "execution_success",
    "execution_interrupted",
    "execution_error",
    "file_downloaded",
    "file_uploaded",
    "file_deleted",
)
"""Types of messages of ComfyUI's websocket, and events of storage: what the operator can be notified of."""
STORAGE_EVENTS = frozenset({"file_downloaded", "file_uploaded", "file_deleted"})
