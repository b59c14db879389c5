"""Copies of one prompt in ComfyUI's queue: a network can deliver what was sent before it was sent again."""

from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.comfyui.queue import QueueSnapshot


class DuplicatePrompts:
    """Drops the copies of a prompt that is followed, and leaves one. A copy has the same id, or, at a ComfyUI
    that chooses the ids, the same correlation and another id."""

    def __init__(self, client: ComfyUIClient, prompt_id: str, correlation: str) -> None:
        self._client = client
        self._prompt_id = prompt_id
        self._correlation = correlation

    def drop(self, seen: QueueSnapshot) -> bool:
        """Whether a copy had begun beside the prompt. `seen` may be a second old: what it shows is looked at
        again before anything is dropped."""
        if not self._has_copies(seen):
            return False
        fresh = self._client.queue()
        for _ in range(fresh.copies(self._prompt_id) - 1):
            self._client.delete_pending(self._prompt_id)  # one for each call, and never the running one
        others = self._others(fresh)
        for other in others:
            stop(self._client, fresh, other)
        return any(other in fresh.running for other in others)

    def _has_copies(self, seen: QueueSnapshot) -> bool:
        return seen.copies(self._prompt_id) > 1 or bool(self._others(seen))

    def _others(self, seen: QueueSnapshot) -> list[str]:
        return [each for each in seen.ids_of(self._correlation) if each != self._prompt_id]


def stop(client: ComfyUIClient, fresh: QueueSnapshot, prompt_id: str) -> None:
    """All prompts of that id. An interrupt goes out only while it is seen running: versions before 0.3.57
    stop whatever runs."""
    for _ in range(fresh.pending.count(prompt_id)):
        client.delete_pending(prompt_id)
    if prompt_id in fresh.running:
        client.interrupt(prompt_id)
