"""The prompts in the queue of an instance: which of them are of our runs, and stopping the one that runs."""

from collections.abc import Callable
from dataclasses import dataclass

from comfyui_workflow.comfyui.queue import QueueSnapshot
from comfyui_workflow.errors import RunConflict
from comfyui_workflow.sessions.session import ComfyUISession

IsOurs = Callable[[str], bool]
"""Whether a run of that workflow id is one of this server: others may use the same instance."""


@dataclass(frozen=True, kw_only=True)
class RemotePrompt:
    prompt_id: str
    run_id: str | None
    """None for a prompt that is none of ours."""
    position: int
    """Prompts ahead of it; 0 for one that runs."""

    @property
    def words(self) -> str:
        return f"{self.prompt_id} ({self.run_id or 'not a run of this server'})"


IsWanted = Callable[[RemotePrompt], bool]


@dataclass(frozen=True, kw_only=True)
class RemoteQueue:
    """`pending` in the order they will run."""

    running: tuple[RemotePrompt, ...]
    pending: tuple[RemotePrompt, ...]


def remote_queue_of(queue: QueueSnapshot, is_ours: IsOurs) -> RemoteQueue:
    runs = {
        prompt_id: run_id
        for label, prompt_id in queue.correlations.items()
        if is_ours(run_id := label.partition("/")[0])
    }

    def prompt(prompt_id: str, position: int) -> RemotePrompt:
        return RemotePrompt(prompt_id=prompt_id, run_id=runs.get(prompt_id), position=position)

    ahead = len(queue.running)
    return RemoteQueue(
        running=tuple(prompt(prompt_id, 0) for prompt_id in queue.running),
        pending=tuple(prompt(prompt_id, ahead + n) for n, prompt_id in enumerate(queue.pending)),
    )


def interrupt_prompt(
    session: ComfyUISession,
    is_wanted: IsWanted | None,
    is_ours: IsOurs,
    announce: Callable[[RemotePrompt], None] = lambda _: None,
) -> tuple[RemotePrompt, ...]:
    """What was seen running and is told to stop: the one that is wanted, or whatever runs. `announce` is
    called with each before.
    Raises: RunConflict where the one that is wanted does not run there; ComfyUIError."""
    there = remote_queue_of(session.client.queue(), is_ours)
    stopped = there.running if is_wanted is None else (_running(there, is_wanted),)
    for prompt in stopped:
        announce(prompt)
    if stopped:
        session.client.interrupt(None if is_wanted is None else stopped[0].prompt_id)
    return stopped


def _running(there: RemoteQueue, is_wanted: IsWanted) -> RemotePrompt:
    for prompt in filter(is_wanted, there.running):
        return prompt
    for prompt in filter(is_wanted, there.pending):
        raise RunConflict(
            f"It does not run yet: {prompt.position} go before it. A run is cancelled by its own route"
        )
    raise RunConflict("It does not run there")
