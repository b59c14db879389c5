"""Detects a prompt that will never end, as opposed to one that takes long.

How it works. When the worker thread of a ComfyUI dies, the HTTP routes still answer: the queue shows the
prompt as running for ever, an interrupt has no effect, and no other prompt starts. The log contains the
traceback, unless the thread ended by a SystemExit; then only a time limit helps.
"""

import time
from collections.abc import Callable

from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.comfyui.tracebacks import worker_death
from comfyui_workflow.errors import ComfyUIError, ComfyUIUnavailable, InstanceBroken

LOOK_AT_LOG_AFTER_S = 10.0
"""Or after half of a shorter limit: the log tells the reason, the limit only that there is one."""
ADVICE = "Restart ComfyUI on the instance"


class StallDetector:
    """Watches one prompt. `limit_s` is how long it may run without a message; 0 means no limit."""

    def __init__(
        self, client: ComfyUIClient, limit_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._limit_s = limit_s
        self._clock = clock
        self._log_after_s = min(LOOK_AT_LOG_AFTER_S, limit_s / 2) if limit_s else LOOK_AT_LOG_AFTER_S
        self.record_progress()

    def record_progress(self) -> None:
        """To be called when something happened to the prompt."""
        self._quiet_since_s = self._clock()
        self._next_log_check_s = self._clock() + self._log_after_s

    def check(self, *, is_running: bool) -> None:
        """To be called whenever the queue still has the prompt. Raises: InstanceBroken."""
        quiet_s = self._clock() - self._quiet_since_s
        if self._clock() >= self._next_log_check_s:
            self._next_log_check_s = self._clock() + max(self._log_after_s, quiet_s)
            self._check_log()
        if is_running and 0 < self._limit_s <= quiet_s:
            raise InstanceBroken(
                f"The prompt has been running for {quiet_s:.0f} s without a sign of progress: "
                f"the worker of ComfyUI seems to be dead. {ADVICE}"
            )

    def _check_log(self) -> None:
        try:
            reason = worker_death(self._client.log())
        except (ComfyUIUnavailable, InstanceBroken):
            raise
        except ComfyUIError:
            return  # this version does not serve its log
        if reason is not None:
            raise InstanceBroken(f"The worker of ComfyUI has died ({reason}). {ADVICE}")
