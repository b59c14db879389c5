"""Looks a prompt up in ComfyUI. This is done before a prompt is sent again, since ComfyUI runs the same id
twice."""

import re
import time
import uuid
from collections.abc import Container
from dataclasses import dataclass

from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.comfyui.queue import CORRELATION_KEY, PromptMark
from comfyui_workflow.errors import ComfyUIError, ComfyUIUnavailable

LOOK_AGAIN_AFTER_S = 1.0
"""A prompt that is absent twice, this long apart, is absent: data that was in transit when a connection broke
has arrived by then."""
ACCEPTS_PROMPT_IDS_SINCE = (0, 3, 45)
_RECENT = 50
_JUST_ENDED = 8
MOST_HISTORY_BYTES = 2_000_000_000
HISTORY_LIMIT_S = 120.0
_OVERLAP_BYTES = 1024
"""Bytes of history that are kept from one piece to the next, so that no match is cut in two."""
_ENTRY = re.compile(rb'"prompt":\s*\[\s*-?[0-9][0-9.eE+-]*,\s*"([^"\\]{1,200})"')


@dataclass(frozen=True, kw_only=True)
class FoundPrompt:
    """`mark`: the mark of one of our servers in the prompt, if ComfyUI showed it."""

    prompt_id: str
    mark: PromptMark | None = None


def new_prompt_id() -> str:
    """Returns a new UUID with hyphens, in lower case: newer versions accept nothing else."""
    return str(uuid.uuid4())


def derived_prompt_id(server: uuid.UUID, correlation: str) -> str:
    """Returns the prompt id of one submission of one run. It is derived, not random, so that the prompt can
    be found even if the record of the submission was lost."""
    return str(uuid.uuid5(server, correlation))


def find_prompt(
    client: ComfyUIClient, prompt_id: str, correlation: str, *, is_thorough: bool = True
) -> FoundPrompt | None:
    """Returns the prompt if ComfyUI has it. Searches the queue, then the history, then our own key in
    `extra_data` (for a ComfyUI that chose its own id): in the whole history, or in its newest part unless
    `is_thorough`. Raises: ComfyUIUnavailable, also if the history is too long to search."""
    snapshot = client.queue()
    marks = {mark.prompt_id: mark for mark in snapshot.marks if mark.correlation == correlation}
    if prompt_id in snapshot:
        return FoundPrompt(prompt_id=prompt_id, mark=marks.get(prompt_id))
    if (entry := client.history(prompt_id)) is not None:
        return FoundPrompt(prompt_id=prompt_id, mark=entry.mark)
    for mark in marks.values():
        return FoundPrompt(prompt_id=mark.prompt_id, mark=mark)
    return None if accepts_prompt_ids(client) else _find_in_history(client, correlation, is_thorough)


def accepts_prompt_ids(client: ComfyUIClient) -> bool:
    """True if this ComfyUI is known to run a prompt under the id that it was sent with (since 0.3.45)."""
    try:
        version = client.system().comfyui_version or ""
    except ComfyUIUnavailable:
        raise
    except ComfyUIError:
        return False
    numbers = re.match(r"v?([0-9]{1,6})\.([0-9]{1,6})\.([0-9]{1,6})", version)
    return numbers is not None and tuple(map(int, numbers.groups())) >= ACCEPTS_PROMPT_IDS_SINCE


def find_mark_of_run(client: ComfyUIClient, run_id: str) -> PromptMark | None:
    """Returns the mark with the highest submission number of a run, from the queue and the recent history."""
    recent = (entry.mark for entry in client.recent_history(_RECENT) if entry.mark is not None)
    own = [mark for mark in (*client.queue().marks, *recent) if mark.run_id == run_id]
    return max(own, key=lambda mark: mark.submission or 0, default=None)


def find_successor(
    client: ComfyUIClient, correlation: str, known: Container[str], *, is_thorough: bool
) -> str | None:
    """Returns the id of the first prompt of that correlation that is not known. There is one if a node has
    queued its own prompt again, under a new id. `is_thorough`: the prompt may have ended a while ago. The
    queue is requested first: a prompt moves from there to the history."""
    queue = client.queue()
    recent = client.recent_history(_RECENT if is_thorough else _JUST_ENDED)
    ended = [entry.mark for entry in recent if entry.mark is not None]
    ids = [mark.prompt_id for mark in (*ended, *queue.marks) if mark.correlation == correlation]
    return next((each for each in ids if each not in known), None)


def drop_copies(client: ComfyUIClient, prompt_id: str) -> None:
    """After a second POST of one id: if the first one arrived late, deletes one of the two."""
    if client.queue().copies(prompt_id) > 1:
        client.delete_pending(prompt_id)


def _find_in_history(client: ComfyUIClient, correlation: str, is_thorough: bool) -> FoundPrompt | None:
    for entry in client.recent_history(_RECENT):
        if entry.mark is not None and entry.mark.correlation == correlation:
            return FoundPrompt(prompt_id=entry.prompt_id, mark=entry.mark)
    return _find_in_all_history(client, correlation) if is_thorough else None


def _find_in_all_history(client: ComfyUIClient, correlation: str) -> FoundPrompt | None:
    """Reads the history in pieces, never as a whole in memory: it may have ten thousand prompts, each with
    its workflow. Versions that choose their own ids send it in one response only."""
    needle = f'"{CORRELATION_KEY}": "{correlation}"'.encode()
    window, last_id, read = b"", b"", 0
    until_s = time.monotonic() + HISTORY_LIMIT_S
    with client.whole_history() as pieces:
        for piece in pieces:
            read += len(piece)
            if read > MOST_HISTORY_BYTES or time.monotonic() > until_s:
                raise ComfyUIUnavailable(
                    "It is not known if ComfyUI already has the prompt: its history is too long to search. "
                    "Clear the history of ComfyUI, or run the workflow again"
                )
            window += piece
            at = window.find(needle)
            ids = _ENTRY.findall(window if at < 0 else window[:at])
            last_id = ids[-1] if ids else last_id
            if at >= 0:
                return _confirmed(client, last_id.decode(errors="replace"), correlation)
            window = window[-_OVERLAP_BYTES:]
    return None


def _confirmed(client: ComfyUIClient, prompt_id: str, correlation: str) -> FoundPrompt:
    entry = client.history(prompt_id) if prompt_id else None
    if entry is None or entry.mark is None or entry.mark.correlation != correlation:
        raise ComfyUIUnavailable("ComfyUI has the prompt in its history, but its id cannot be read")
    return FoundPrompt(prompt_id=prompt_id, mark=entry.mark)
