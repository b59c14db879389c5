"""Whether ComfyUI has a prompt: asked before anything is sent again, since it runs one id twice."""

import uuid
from dataclasses import dataclass

from comfyui_workflow.comfyui.client import ComfyUIClient

LOOK_AGAIN_AFTER_S = 1.0
"""Absent twice, so long apart, is absent: what was under way when a connection broke has arrived by then."""
_RECENT = 200


def new_prompt_id() -> str:
    """Newer versions take nothing but a UUID with hyphens, in lower case."""
    return str(uuid.uuid4())


def find_prompt(client: ComfyUIClient, prompt_id: str, correlation: str) -> str | None:
    """The id under which ComfyUI has the prompt: queue, then history, then our own key in its `extra_data`
    for a ComfyUI that chose an id of its own."""
    snapshot = client.queue()
    if prompt_id in snapshot or client.history(prompt_id) is not None:
        return prompt_id
    if correlation in snapshot.correlations:
        return snapshot.correlations[correlation]
    recent = client.recent_history(_RECENT)
    return next((entry.prompt_id for entry in recent if entry.correlation == correlation), None)


@dataclass(frozen=True, kw_only=True)
class FoundPrompt:
    """A prompt that was found by our key in its `extra_data`."""

    prompt_id: str
    submissions: int
    """Which submission of its run it was, from 1."""


def find_prompt_of_run(client: ComfyUIClient, workflow_id: str) -> FoundPrompt | None:
    """The last prompt of a run that the queue or the recent history has, whichever submission it was."""
    found = dict(client.queue().correlations)
    for entry in client.recent_history(_RECENT):
        if entry.correlation is not None:
            found.setdefault(entry.correlation, entry.prompt_id)
    own = [
        FoundPrompt(prompt_id=prompt_id, submissions=int(number))
        for key, prompt_id in found.items()
        if (number := key.removeprefix(f"{workflow_id}/")) != key and number.isascii() and number.isdigit()
    ]
    return max(own, key=lambda each: each.submissions, default=None)


def drop_copies(client: ComfyUIClient, prompt_id: str) -> None:
    """After a second POST of one id: should the first have arrived late, one of the two goes."""
    if client.queue().copies(prompt_id) > 1:
        client.delete_pending(prompt_id)
