"""Duplicates of one prompt in ComfyUI's queue. They arise when a prompt was sent again and the network
delivers the first copy late."""

from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.comfyui.queue import QueueSnapshot


class DuplicatePrompts:
    """Deletes the duplicates of a tracked prompt, and leaves one. A duplicate has the same id. If ComfyUI
    chooses the ids, it has another id and the same correlation."""

    def __init__(self, client: ComfyUIClient, prompt_id: str, correlation: str | None) -> None:
        """`correlation` is None if ComfyUI took our id. Then a prompt with another id and our correlation is
        no duplicate: a node has queued it."""
        self._client = client
        self._prompt_id = prompt_id
        self._correlation = correlation

    def drop(self, seen: QueueSnapshot) -> bool:
        """Deletes duplicates. Returns True if one of them had already started, besides the tracked prompt.
        `seen` may be a second old, so the queue is requested again before anything is deleted."""
        if not self._has_copies(seen):
            return False
        fresh = self._client.queue()
        for _ in range(fresh.copies(self._prompt_id) - 1):
            self._client.delete_pending(self._prompt_id)  # each call deletes one, and never the running one
        others = self._others(fresh)
        for other in others:
            stop(self._client, fresh, other)
        return any(other in fresh.running for other in others)

    def _has_copies(self, seen: QueueSnapshot) -> bool:
        return seen.copies(self._prompt_id) > 1 or bool(self._others(seen))

    def _others(self, seen: QueueSnapshot) -> list[str]:
        if self._correlation is None:
            return []
        return [each for each in seen.ids_of(self._correlation) if each != self._prompt_id]


def stop(client: ComfyUIClient, fresh: QueueSnapshot, prompt_id: str) -> None:
    """Deletes or interrupts all prompts with that id. An interrupt is sent only if the prompt is seen
    running: versions before 0.3.57 interrupt whatever runs."""
    for _ in range(fresh.pending.count(prompt_id)):
        client.delete_pending(prompt_id)
    if prompt_id in fresh.running:
        client.interrupt(prompt_id)
