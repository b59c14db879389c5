"""Cancels one prompt of a ComfyUI, and no other."""

import time
from collections.abc import Callable

from comfyui_workflow.comfyui.client import ComfyUIClient

ASK_EVERY_S = 1.0


class Canceller:
    """ComfyUI does not confirm a cancellation, and loses an interrupt that arrives between two prompts. So
    the request is repeated every ASK_EVERY_S until the prompt is gone.

    New versions have a route that cancels one prompt, whatever its state is. For others the queue tells
    whether the prompt must be deleted or interrupted."""

    def __init__(
        self, client: ComfyUIClient, prompt_id: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._prompt_id = prompt_id
        self._clock = clock
        self._ask_at_s = 0.0
        self._has_route = True

    def ask(self) -> None:
        """To be called at every tick."""
        if self._clock() < self._ask_at_s:
            return
        self._ask_at_s = self._clock() + ASK_EVERY_S
        self._has_route = self._has_route and self._client.cancel_job(self._prompt_id)
        if not self._has_route:
            self._ask_old_version()

    def _ask_old_version(self) -> None:
        """An interrupt is sent only while the queue shows this prompt as running: versions that ignore the id
        interrupt whatever runs."""
        snapshot = self._client.queue()
        if self._prompt_id in snapshot.pending:
            self._client.delete_pending(self._prompt_id)
        elif self._prompt_id in snapshot.running:
            self._client.interrupt(self._prompt_id)
