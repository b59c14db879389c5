"""The prompts in the queue of an instance: which of them are of our runs, and stopping the one that runs."""

from collections.abc import Callable
from dataclasses import dataclass

from comfyui_workflow.comfyui.queue import QueueSnapshot
from comfyui_workflow.errors import RunConflict
from comfyui_workflow.link import Link

IsOurs = Callable[[str], bool]
"""Whether a run of that workflow id is one of this server: others may use the same instance."""


@dataclass(frozen=True, kw_only=True)
class PromptThere:
    prompt_id: str
    workflow_id: str | None
    """None for a prompt that is none of ours."""
    position: int
    """Prompts ahead of it; 0 for one that runs."""

    @property
    def words(self) -> str:
        return f"{self.prompt_id} ({self.workflow_id or 'not a run of this server'})"


@dataclass(frozen=True, kw_only=True)
class PromptsThere:
    """`pending` in the order they will run."""

    running: tuple[PromptThere, ...]
    pending: tuple[PromptThere, ...]


def prompts_there(queue: QueueSnapshot, is_ours: IsOurs) -> PromptsThere:
    runs = {
        prompt_id: workflow_id
        for label, prompt_id in queue.correlations.items()
        if is_ours(workflow_id := label.partition("/")[0])
    }

    def prompt(prompt_id: str, position: int) -> PromptThere:
        return PromptThere(prompt_id=prompt_id, workflow_id=runs.get(prompt_id), position=position)

    ahead = len(queue.running)
    return PromptsThere(
        running=tuple(prompt(prompt_id, 0) for prompt_id in queue.running),
        pending=tuple(prompt(prompt_id, ahead + n) for n, prompt_id in enumerate(queue.pending)),
    )


def interrupt_there(
    link: Link, is_wanted: Callable[[PromptThere], bool] | None, is_ours: IsOurs
) -> tuple[PromptThere, ...]:
    """What was seen running and is told to stop: the one that is wanted, or whatever runs.
    Raises: RunConflict where the one that is wanted does not run there; ComfyUIError."""
    there = prompts_there(link.client.queue(), is_ours)
    if is_wanted is None:
        if there.running:
            link.client.interrupt()
        return there.running
    running = [prompt for prompt in there.running if is_wanted(prompt)]
    if not running:
        waiting = next((prompt for prompt in there.pending if is_wanted(prompt)), None)
        raise RunConflict(
            "It does not run there"
            if waiting is None
            else f"It does not run yet: {waiting.position} go before it. A run is cancelled by its own route"
        )
    link.client.interrupt(running[0].prompt_id)
    return (running[0],)
