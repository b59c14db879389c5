"""The prompts whose end a websocket has yet to hear of, and what it missed while it was away.

ComfyUI replays nothing. A client that waits for the end of its prompt would wait for ever if the connection
underneath was away just then: so it is told from ComfyUI's history, in ComfyUI's own words.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from comfyui_workflow.comfyui.limits import value_count
from comfyui_workflow.comfyui.messages import prompt_id_of, says_ended
from comfyui_workflow.parsing.untrusted import a_list, an_object, read_json, shown

ENDINGS = ("execution_success", "execution_error", "execution_interrupted")
MOST_PROMPTS = 1000
MOST_NODES = 10_000
LONGEST_READ = 4 * 1024 * 1024
SHORT = 256 * 1024
MOST_VALUES = 100_000
"""Of one message: it is read on the event loop, where everybody waits for it."""


@dataclass
class _Told:
    has_started: bool = False
    ends: set[str] = field(default_factory=set)
    executed: set[str] = field(default_factory=set)


class UnfinishedPrompts:
    """Of one websocket. Belongs to the event loop."""

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}
        self._ended: dict[str, None] = {}

    @property
    def prompt_ids(self) -> list[str]:
        return list(self._told)

    def expect(self, prompt_id: str) -> None:
        """It was submitted. Its end may have been heard of before the answer that says so."""
        if prompt_id not in self._ended:
            self._told.setdefault(prompt_id, _Told())
            _keep_newest(self._told)

    def hear(self, frame: str) -> None:
        """What ComfyUI says; only `execut…` messages are about more than progress, and so is only their
        beginning looked at."""
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
        told, kind = self._told.get(prompt_id, _Told()), message["type"]
        told.has_started |= kind == "execution_start"
        if kind == "executed" and len(told.executed) < MOST_NODES:
            told.executed.add(shown(message["data"].get("node")))
        elif kind in ENDINGS:
            told.ends.add(kind)

    def missed(self, prompt_id: str, history: object) -> Iterator[str]:
        """The messages about a prompt that has ended meanwhile; none where its history is empty."""
        entry = an_object(an_object(history).get(prompt_id))
        if not entry:
            return
        told = self._end(prompt_id)
        said = _said(entry)
        if not told.has_started and "execution_start" in said:
            yield _word("execution_start", said["execution_start"])
        for node_id, output in an_object(entry.get("outputs")).items():
            if node_id not in told.executed:
                shown_at = an_object(an_object(entry.get("meta")).get(node_id)).get("display_node", node_id)
                data = {"node": node_id, "display_node": shown_at, "output": output, "prompt_id": prompt_id}
                yield _word("executed", data)
        for kind in ENDINGS:
            if kind in said and kind not in told.ends:
                yield _word(kind, said[kind])
        yield _word("executing", {"node": None, "prompt_id": prompt_id})

    def _end(self, prompt_id: str) -> _Told:
        self._ended[prompt_id] = None
        _keep_newest(self._ended)
        return self._told.pop(prompt_id, _Told())


def _keep_newest(prompts: dict[str, Any]) -> None:
    """The oldest is given up where there are very many."""
    if len(prompts) > MOST_PROMPTS:
        prompts.pop(next(iter(prompts)))


def message_of(frame: str) -> Mapping[str, Any]:
    """An empty one for what is none, and for one that is longer than any that tells of a prompt's course."""
    if len(frame) > LONGEST_READ or (len(frame) > SHORT and value_count(frame.encode()) > MOST_VALUES):
        return {}
    try:
        return an_object(read_json(frame))
    except ValueError:
        return {}


def _said(entry: Mapping[str, Any]) -> dict[str, object]:
    """The last message of each type that the history keeps: [[type, data], ...]."""
    messages = a_list(an_object(entry.get("status")).get("messages"))
    return {
        each[0]: each[1]
        for each in messages
        if isinstance(each, list) and len(each) == 2 and isinstance(each[0], str)
    }


def _word(kind: str, data: object) -> str:
    return json.dumps({"type": kind, "data": data})
