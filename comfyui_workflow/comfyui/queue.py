"""Reads a response of `GET /queue`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfyui_workflow.parsing.untrusted import as_list, as_object, as_text
from comfyui_workflow.workflows.graph import Graph

_LATEST_S = 1e12

CORRELATION_KEY = "comfyui_workflow"
"""Our key in a prompt's `extra_data`, which every ComfyUI keeps unchanged in queue and history."""
SENDER_KEY = "comfyui_workflow_sender"
"""A second key: `{"process": str, "sent_at": Unix seconds}`, the server process that sent the prompt, and
when."""


@dataclass(frozen=True, kw_only=True)
class PromptMark:
    """Our data in the `extra_data` of one prompt in queue or history."""

    prompt_id: str
    correlation: str
    """`<workflow id>/<submission>`."""
    process: str | None = None
    """The server process that sent the prompt; None if its version did not write that."""
    sent_at_s: float | None = None
    """Unix seconds, by the clock of the sender."""

    @property
    def run_id(self) -> str:
        return self.correlation.rpartition("/")[0]

    @property
    def submission(self) -> int | None:
        number = self.correlation.rpartition("/")[2]
        return int(number) if re.fullmatch("[0-9]{1,9}", number) else None


@dataclass(frozen=True, kw_only=True)
class QueueSnapshot:
    """Prompt ids; `pending` in the order of execution. `correlations` maps our key in `extra_data` to prompt
    ids: old versions choose the ids themselves."""

    running: tuple[str, ...]
    pending: tuple[str, ...]
    correlations: Mapping[str, str]
    marks: tuple[PromptMark, ...] = ()
    """One for each prompt that has a mark, duplicates of one id included."""

    def __contains__(self, prompt_id: object) -> bool:
        return prompt_id in self.running or prompt_id in self.pending

    def position(self, prompt_id: str) -> int | None:
        """Returns the number of prompts ahead of this pending one, running ones included."""
        if prompt_id not in self.pending:
            return None
        return len(self.running) + self.pending.index(prompt_id)

    def copies(self, prompt_id: str) -> int:
        return (*self.running, *self.pending).count(prompt_id)

    def ids_of(self, correlation: str) -> tuple[str, ...]:
        """Returns the ids of the prompts with that correlation. There may be several if ComfyUI chooses the
        ids."""
        return tuple(dict.fromkeys(mark.prompt_id for mark in self.marks if mark.correlation == correlation))


def read_queue(answer: Mapping[str, Any]) -> QueueSnapshot:
    """Sorts `queue_pending` by number, then by id, which is the order of execution: ComfyUI sends its heap as
    it is in memory."""
    running = [item for item in as_list(answer.get("queue_running")) if _is_item(item)]
    pending = sorted(
        (item for item in as_list(answer.get("queue_pending")) if _is_item(item)),
        key=lambda item: (item[0], item[1]),
    )
    marks = tuple(mark for item in (*running, *pending) if (mark := read_mark(item)))
    return QueueSnapshot(
        running=tuple(item[1] for item in running),
        pending=tuple(item[1] for item in pending),
        correlations={mark.correlation: mark.prompt_id for mark in marks},
        marks=marks,
    )


def read_running_graphs(answer: Mapping[str, Any]) -> dict[str, Graph]:
    """Returns the running graphs by prompt id."""
    running = [item for item in as_list(answer.get("queue_running")) if _is_item(item) and len(item) > 2]
    return {item[1]: item[2] for item in running if isinstance(item[2], dict)}


def read_mark(item: Any) -> PromptMark | None:
    """Returns our data in the `extra_data` of a queue item; history entries contain the item, too."""
    match item:
        case [_, str() as prompt_id, _, dict() as extra, *_]:
            value, sender = extra.get(CORRELATION_KEY), as_object(extra.get(SENDER_KEY))
        case _:
            return None
    if not isinstance(value, str) or not value:
        return None
    return PromptMark(
        prompt_id=prompt_id,
        correlation=value,
        process=as_text(sender.get("process")),
        sent_at_s=_parse_time(sender.get("sent_at")),
    )


def _parse_time(value: object) -> float | None:
    match value:
        case bool():
            return None
        case int() | float() if abs(value) < _LATEST_S:
            return float(value)
    return None


def _is_item(item: object) -> bool:
    match item:
        case [int() | float(), str(), *_]:
            return True
    return False
