"""Queue of an instance: lists its prompts, marks those of our runs, and interrupts the running one."""

from collections.abc import Callable
from dataclasses import dataclass

from comfyui_workflow.comfyui.queue import QueueSnapshot
from comfyui_workflow.errors import RunConflict
from comfyui_workflow.sessions.session import ComfyUISession

IsOurs = Callable[[str], bool]
"""True if a run with that id belongs to this server: other clients may use the same instance."""


@dataclass(frozen=True, kw_only=True)
class RemotePrompt:
    prompt_id: str
    run_id: str | None
    """None for a prompt that is not ours."""
    position: int
    """Number of prompts ahead of it; 0 for the running one."""

    @property
    def words(self) -> str:
        return f"{self.prompt_id} ({self.run_id or 'not a run of this server'})"


PromptFilter = Callable[[RemotePrompt], bool]


@dataclass(frozen=True, kw_only=True)
class RemoteQueue:
    """`pending` is in execution order."""

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
    is_wanted: PromptFilter | None,
    is_ours: IsOurs,
    announce: Callable[[RemotePrompt], None] = lambda _: None,
) -> tuple[RemotePrompt, ...]:
    """Interrupts the running prompt that `is_wanted` selects, or every running prompt if it is None. Returns
    the interrupted prompts; `announce` is called with each of them before the interrupt.
    Raises: RunConflict if the selected prompt is not running there; ComfyUIError."""
    queue = remote_queue_of(session.client.queue(), is_ours)
    stopped = queue.running if is_wanted is None else (_running(queue, is_wanted),)
    for prompt in stopped:
        announce(prompt)
    if stopped:
        session.client.interrupt(None if is_wanted is None else stopped[0].prompt_id)
    return stopped


def _running(queue: RemoteQueue, is_wanted: PromptFilter) -> RemotePrompt:
    for prompt in filter(is_wanted, queue.running):
        return prompt
    for prompt in filter(is_wanted, queue.pending):
        raise RunConflict(
            f"The prompt is not running yet: {prompt.position} ahead of it. To cancel its run, use the route "
            "of the run"
        )
    raise RunConflict("The prompt is not running there")
