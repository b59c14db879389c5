"""Converts ComfyUI's websocket messages to events of a run."""

from collections.abc import Iterator, Mapping
from typing import Any

from comfyui_workflow.parsing.untrusted import as_list, as_object, shown
from comfyui_workflow.runs.events import (
    Event,
    ExecutionStarted,
    NodesAdvanced,
    NodesCached,
    NodeStarted,
    NodeStep,
    NoticeAdded,
)

Message = Mapping[str, Any]
"""`{"type": str, "data": {"prompt_id": str, ...}}`"""


def prompt_id_of(message: Message) -> str | None:
    data = message.get("data")
    prompt_id = data.get("prompt_id") if isinstance(data, dict) else None
    return prompt_id if isinstance(prompt_id, str) else None


def says_ended(message: Message) -> bool:
    """True for an `executing` message without a node: ComfyUI sends it once the history has the outcome,
    whatever that is."""
    return message.get("type") == "executing" and message["data"].get("node") is None


class MessageReader:
    """Reads the messages of one prompt. `progress_state` (since 0.3.45) contains the full state of all nodes.
    Without it, a node counts as finished when the next one starts."""

    def __init__(self) -> None:
        self._has_states = False
        self._has_seen_state = False

    def events(self, message: Message) -> Iterator[Event]:
        """Yields the events of one message; none for unknown types: custom nodes send messages of their
        own."""
        data = message["data"]
        match message.get("type"):
            case "execution_start":
                yield ExecutionStarted()
            case "execution_cached":
                yield NodesCached(node_ids=frozenset(map(shown, as_list(data.get("nodes")))))
            case "progress_state":
                self._has_states = True
                yield NodesAdvanced(steps=_steps(data.get("nodes")), first_look=not self._has_seen_state)
                self._has_seen_state = True
            case "executing" if isinstance(data.get("node"), str):
                node_id = _displayed(data)
                yield NodeStarted(node_id=node_id, ends_others=not self._has_states)
            case "progress" if not self._has_states and isinstance(data.get("node"), str):
                yield NodesAdvanced(steps={data["node"]: _step(data)})
            case "execution_error" if data.get("exception_type") == "ExecutionBlocked":
                yield NoticeAdded(message=f"Blocked, not failed: {_text(data.get('exception_message'))}")


def _steps(nodes: object) -> dict[str, NodeStep]:
    """Returns the steps by the id of the node in the submitted workflow. A node may expand into other nodes
    at run time; they are shown under its id, but its own entry decides."""
    entries = [entry for entry in as_object(nodes).values() if isinstance(entry, dict)]
    own = {_shown_as(e): _step(e) for e in entries if e.get("node_id") == _shown_as(e)}
    inner = {_shown_as(e): NodeStep(value=0, maximum=1) for e in entries}
    return inner | own


def _shown_as(entry: Mapping[str, Any]) -> str:
    return shown(entry.get("display_node_id") or entry.get("node_id"))


def _step(entry: Mapping[str, Any]) -> NodeStep:
    return NodeStep(
        value=_number(entry.get("value")),
        maximum=_number(entry.get("max")),
        is_finished=entry.get("state") == "finished",
    )


def _displayed(data: Mapping[str, Any]) -> str:
    shown = data.get("display_node")
    return shown if isinstance(shown, str) else str(data["node"])


def _number(value: object) -> float:
    """Returns 0 for NaN and infinite values: both occur in messages, and no browser can parse them."""
    return float(value) if isinstance(value, int | float) and abs(value) < 1e15 else 0.0


def _text(value: object) -> str:
    return shown(value) if isinstance(value, str) else "no reason given"
