"""Whether ComfyUI has a prompt: asked before anything is sent again, since it runs one id twice."""

import re
import time
import uuid
from dataclasses import dataclass

from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.comfyui.queue import CORRELATION_KEY, PromptMark
from comfyui_workflow.errors import ComfyUIError, ComfyUIUnavailable

LOOK_AGAIN_AFTER_S = 1.0
"""Absent twice, so long apart, is absent: what was under way when a connection broke has arrived by then."""
TAKES_OUR_IDS = (0, 3, 45)
_RECENT = 50
MOST_HISTORY_BYTES = 2_000_000_000
HISTORY_LIMIT_S = 120.0
_OVERLAP_BYTES = 1024
"""Bytes of history that are kept from one piece to the next, so that no word is cut in two."""
_ENTRY = re.compile(rb'"prompt":\s*\[\s*-?[0-9][0-9.eE+-]*,\s*"([^"\\]{1,200})"')


@dataclass(frozen=True, kw_only=True)
class FoundPrompt:
    """`mark`: what a server of ours wrote into it, where ComfyUI showed it."""

    prompt_id: str
    mark: PromptMark | None = None


def new_prompt_id() -> str:
    """Newer versions take nothing but a UUID with hyphens, in lower case."""
    return str(uuid.uuid4())


def derived_prompt_id(server: uuid.UUID, correlation: str) -> str:
    """The prompt id of one submission of one run: the same whenever it is asked for, so that a prompt can be
    found of which the record was lost."""
    return str(uuid.uuid5(server, correlation))


def find_prompt(
    client: ComfyUIClient, prompt_id: str, correlation: str, *, is_thorough: bool = True
) -> FoundPrompt | None:
    """The id under which ComfyUI has the prompt: queue, then history, then our own key in its `extra_data`
    for a ComfyUI that chose an id of its own: in all of its history, or in the newest part unless
    `is_thorough`. Raises: ComfyUIUnavailable, also where its history is too long to be looked through."""
    snapshot = client.queue()
    marks = {mark.prompt_id: mark for mark in snapshot.marks if mark.correlation == correlation}
    if prompt_id in snapshot:
        return FoundPrompt(prompt_id=prompt_id, mark=marks.get(prompt_id))
    if (entry := client.history(prompt_id)) is not None:
        return FoundPrompt(prompt_id=prompt_id, mark=entry.mark)
    for mark in marks.values():
        return FoundPrompt(prompt_id=mark.prompt_id, mark=mark)
    return None if takes_our_ids(client) else _find_in_history(client, correlation, is_thorough)


def takes_our_ids(client: ComfyUIClient) -> bool:
    """Whether this ComfyUI is known to run a prompt under the id that it was sent with: since 0.3.45."""
    try:
        version = client.system().comfyui_version or ""
    except ComfyUIUnavailable:
        raise
    except ComfyUIError:
        return False
    numbers = re.match(r"v?([0-9]{1,6})\.([0-9]{1,6})\.([0-9]{1,6})", version)
    return numbers is not None and tuple(map(int, numbers.groups())) >= TAKES_OUR_IDS


def find_mark_of_run(client: ComfyUIClient, run_id: str) -> PromptMark | None:
    """The mark at the last prompt of a run that the queue or the recent history has, whichever submission it
    was."""
    recent = (entry.mark for entry in client.recent_history(_RECENT) if entry.mark is not None)
    own = [mark for mark in (*client.queue().marks, *recent) if mark.run_id == run_id]
    return max(own, key=lambda mark: mark.submission or 0, default=None)


def drop_copies(client: ComfyUIClient, prompt_id: str) -> None:
    """After a second POST of one id: should the first have arrived late, one of the two goes."""
    if client.queue().copies(prompt_id) > 1:
        client.delete_pending(prompt_id)


def _find_in_history(client: ComfyUIClient, correlation: str, is_thorough: bool) -> FoundPrompt | None:
    for entry in client.recent_history(_RECENT):
        if entry.mark is not None and entry.mark.correlation == correlation:
            return FoundPrompt(prompt_id=entry.prompt_id, mark=entry.mark)
    return _find_in_all_history(client, correlation) if is_thorough else None


def _find_in_all_history(client: ComfyUIClient, correlation: str) -> FoundPrompt | None:
    """Read as it comes, and never held as a whole: it may be ten thousand prompts, each with its workflow.
    Versions that choose their own ids give it in one piece only."""
    needle = f'"{CORRELATION_KEY}": "{correlation}"'.encode()
    window, last_id, read = b"", b"", 0
    until_s = time.monotonic() + HISTORY_LIMIT_S
    with client.whole_history() as pieces:
        for piece in pieces:
            read += len(piece)
            if read > MOST_HISTORY_BYTES or time.monotonic() > until_s:
                raise ComfyUIUnavailable(
                    "Whether ComfyUI has the prompt already is not known: its history is too long to be "
                    "looked through. Clear its history, or execute the workflow anew"
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
        raise ComfyUIUnavailable("ComfyUI has the prompt in its history and does not tell under which id")
    return FoundPrompt(prompt_id=prompt_id, mark=entry.mark)
