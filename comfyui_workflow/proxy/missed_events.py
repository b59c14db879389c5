"""Replays the events that a client missed while its websocket to ComfyUI was disconnected.

How it works. ComfyUI replays nothing: a client that waits for the end of its prompt would wait for ever if
the connection was down at that moment. So UnfinishedPrompts records which events of each prompt the client
received. After a reconnect, the missing events are generated from ComfyUI's history, in the format of
ComfyUI's own messages.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfyui_workflow.comfyui.limits import value_count
from comfyui_workflow.comfyui.messages import prompt_id_of, says_ended
from comfyui_workflow.parsing.untrusted import as_list, as_object, read_json, shown

ENDINGS = ("execution_success", "execution_error", "execution_interrupted")
MOST_PROMPTS = 1000
MOST_NODES = 10_000
LONGEST_READ = 4 * 1024 * 1024
SHORT = 256 * 1024
MOST_VALUES = 100_000
"""JSON values of one message: it is parsed on the event loop, which blocks all other connections
meanwhile."""


@dataclass
class _Delivered:
    has_started: bool = False
    ends: set[str] = field(default_factory=set)
    executed: set[str] = field(default_factory=set)


class UnfinishedPrompts:
    """The prompts of one websocket that have not ended, and the events that its client received. Belongs to
    the event loop."""

    def __init__(self) -> None:
        self._delivered: dict[str, _Delivered] = {}
        self._ended: dict[str, None] = {}

    @property
    def prompt_ids(self) -> list[str]:
        return list(self._delivered)

    def expect(self, prompt_id: str) -> None:
        """Records that a prompt was submitted. Its end may have arrived before the response to the
        submission."""
        if prompt_id not in self._ended:
            self._delivered.setdefault(prompt_id, _Delivered())
            _keep_newest(self._delivered)

    def observe(self, frame: str) -> None:
        """Records a message of ComfyUI. Only messages of the types `execut…` matter here, so frames without
        that at their beginning are not parsed."""
        if "execut" not in frame[:40]:
            return
        message = message_of(frame)
        prompt_id = prompt_id_of(message)
        if prompt_id is None:
            return
        if says_ended(message):
            self._end(prompt_id)
            return
        self.expect(prompt_id)
        delivered, kind = self._delivered.get(prompt_id, _Delivered()), message["type"]
        delivered.has_started |= kind == "execution_start"
        if kind == "executed" and len(delivered.executed) < MOST_NODES:
            delivered.executed.add(shown(message["data"].get("node")))
        elif kind in ENDINGS:
            delivered.ends.add(kind)

    def missed(self, prompt_id: str, history: object) -> Iterator[str]:
        """Yields the missed messages of a prompt that has ended; none if the history has no entry for it."""
        entry = as_object(as_object(history).get(prompt_id))
        if not entry:
            return
        delivered = self._end(prompt_id)
        messages = _last_messages(entry)
        if not delivered.has_started and "execution_start" in messages:
            yield _serialize("execution_start", messages["execution_start"])
        for node_id, output in as_object(entry.get("outputs")).items():
            if node_id not in delivered.executed:
                shown_at = as_object(as_object(entry.get("meta")).get(node_id)).get("display_node", node_id)
                data = {"node": node_id, "display_node": shown_at, "output": output, "prompt_id": prompt_id}
                yield _serialize("executed", data)
        for kind in ENDINGS:
            if kind in messages and kind not in delivered.ends:
                yield _serialize(kind, messages[kind])
        yield _serialize("executing", {"node": None, "prompt_id": prompt_id})

    def _end(self, prompt_id: str) -> _Delivered:
        self._ended[prompt_id] = None
        _keep_newest(self._ended)
        return self._delivered.pop(prompt_id, _Delivered())


def _keep_newest(prompts: dict[str, Any]) -> None:
    """Drops the oldest prompt if there are more than MOST_PROMPTS."""
    if len(prompts) > MOST_PROMPTS:
        prompts.pop(next(iter(prompts)))


def message_of(frame: str) -> Mapping[str, Any]:
    """Parses a message. Returns {} if it is no JSON object, or longer than any message about the course of a
    prompt."""
    if len(frame) > LONGEST_READ or (len(frame) > SHORT and value_count(frame.encode()) > MOST_VALUES):
        return {}
    try:
        return as_object(read_json(frame))
    except ValueError:
        return {}


def _last_messages(entry: Mapping[str, Any]) -> dict[str, object]:
    """Returns the last message of each type in the history entry, which has them as [[type, data], ...]."""
    messages = as_list(as_object(entry.get("status")).get("messages"))
    return {
        each[0]: each[1]
        for each in messages
        if isinstance(each, list) and len(each) == 2 and isinstance(each[0], str)
    }


def _serialize(kind: str, data: object) -> str:
    return json.dumps({"type": kind, "data": data})
