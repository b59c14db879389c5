"""`GET /queue`, read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfyui_workflow.parsing.untrusted import a_list, a_text, an_object
from comfyui_workflow.workflows.graph import Graph

_LATEST_S = 1e12

CORRELATION_KEY = "comfyui_workflow"
"""Our key in a prompt's `extra_data`, which every ComfyUI keeps verbatim in queue and history."""
SENDER_KEY = "comfyui_workflow_sender"
"""Beside it: `{"process": str, "sent_at": Unix seconds}`, the server process that sent it, and when."""


@dataclass(frozen=True, kw_only=True)
class PromptMark:
    """Our words in the `extra_data` of one prompt in queue or history."""

    prompt_id: str
    correlation: str
    """`<workflow id>/<submission>`."""
    process: str | None = None
    """The server process that sent it; None of a version that did not tell."""
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
    """Prompt ids; `pending` in the order they will run. `correlations` maps our own key in `extra_data`
    to prompt ids: old versions choose the ids themselves."""

    running: tuple[str, ...]
    pending: tuple[str, ...]
    correlations: Mapping[str, str]
    marks: tuple[PromptMark, ...] = ()
    """One for each prompt that has one, copies of one id included."""

    def __contains__(self, prompt_id: object) -> bool:
        return prompt_id in self.running or prompt_id in self.pending

    def position(self, prompt_id: str) -> int | None:
        """Prompts ahead of this pending one, those that run included."""
        if prompt_id not in self.pending:
            return None
        return len(self.running) + self.pending.index(prompt_id)

    def copies(self, prompt_id: str) -> int:
        return (*self.running, *self.pending).count(prompt_id)

    def ids_of(self, correlation: str) -> tuple[str, ...]:
        """Of the prompts with that mark: ids of their own, where ComfyUI chose them."""
        return tuple(dict.fromkeys(mark.prompt_id for mark in self.marks if mark.correlation == correlation))


def read_queue(answer: Mapping[str, Any]) -> QueueSnapshot:
    """`queue_pending` is a heap as it lies in memory: the order of execution is by number, then by id."""
    running = [item for item in a_list(answer.get("queue_running")) if _is_item(item)]
    pending = sorted(
        (item for item in a_list(answer.get("queue_pending")) if _is_item(item)),
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
    """By prompt ids."""
    running = [item for item in a_list(answer.get("queue_running")) if _is_item(item) and len(item) > 2]
    return {item[1]: item[2] for item in running if isinstance(item[2], dict)}


def read_mark(item: Any) -> PromptMark | None:
    """What we wrote into the `extra_data` of a queue item, which history keeps too."""
    match item:
        case [_, str() as prompt_id, _, dict() as extra, *_]:
            value, sender = extra.get(CORRELATION_KEY), an_object(extra.get(SENDER_KEY))
        case _:
            return None
    if not isinstance(value, str) or not value:
        return None
    return PromptMark(
        prompt_id=prompt_id,
        correlation=value,
        process=a_text(sender.get("process")),
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
