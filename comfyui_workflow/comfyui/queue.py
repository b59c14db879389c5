"""`GET /queue`, read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfyui_workflow.runs.model import Graph
from comfyui_workflow.untrusted import a_list

CORRELATION_KEY = "comfyui_workflow"
"""Our key in a prompt's `extra_data`, which every ComfyUI keeps verbatim in queue and history."""


@dataclass(frozen=True, kw_only=True)
class QueueSnapshot:
    """Prompt ids; `pending` in the order they will run. `correlations` maps our own key in `extra_data`
    to prompt ids: old versions choose the ids themselves."""

    running: tuple[str, ...]
    pending: tuple[str, ...]
    correlations: Mapping[str, str]

    def __contains__(self, prompt_id: object) -> bool:
        return prompt_id in self.running or prompt_id in self.pending

    def position(self, prompt_id: str) -> int | None:
        """Prompts ahead of this pending one, those that run included."""
        if prompt_id not in self.pending:
            return None
        return len(self.running) + self.pending.index(prompt_id)

    def copies(self, prompt_id: str) -> int:
        return (*self.running, *self.pending).count(prompt_id)


def read_queue(answer: Mapping[str, Any]) -> QueueSnapshot:
    """`queue_pending` is a heap as it lies in memory: the order of execution is by number, then by id."""
    running = [item for item in a_list(answer.get("queue_running")) if _is_item(item)]
    pending = sorted(
        (item for item in a_list(answer.get("queue_pending")) if _is_item(item)),
        key=lambda item: (item[0], item[1]),
    )
    return QueueSnapshot(
        running=tuple(item[1] for item in running),
        pending=tuple(item[1] for item in pending),
        correlations={key: item[1] for item in (*running, *pending) if (key := correlation(item))},
    )


def read_running_graphs(answer: Mapping[str, Any]) -> dict[str, Graph]:
    """By prompt ids."""
    running = [item for item in a_list(answer.get("queue_running")) if _is_item(item) and len(item) > 2]
    return {item[1]: item[2] for item in running if isinstance(item[2], dict)}


def correlation(item: Any) -> str | None:
    """What we wrote into the `extra_data` of a queue item, which history keeps too."""
    extra = item[3] if isinstance(item, list) and len(item) > 3 else None
    value = extra.get(CORRELATION_KEY) if isinstance(extra, dict) else None
    return value if isinstance(value, str) else None


def _is_item(item: object) -> bool:
    match item:
        case [int() | float(), str(), *_]:
            return True
    return False
