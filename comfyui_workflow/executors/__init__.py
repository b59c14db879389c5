"""Where and when runs are carried out."""

from collections.abc import Callable
from typing import Protocol

Execute = Callable[[str, Callable[[], bool]], None]
"""`execute(workflow_id, should_stop)`: returns when the run is finished, or soon after `should_stop()`."""


class Executor(Protocol):
    def start(self, workflow_id: str) -> None:
        """Carry the run out, sooner or later; returns at once (but for `inline`)."""

    def stop(self, timeout_s: float) -> bool:
        """Stop carrying out, and start nothing any more. Whether all came to rest in time."""
