"""Tests of the events that a websocket has not received yet."""

import json
from typing import Any

from comfyui_workflow.proxy.missed_events import MOST_PROMPTS, UnfinishedPrompts

HISTORY = {
    "a": {
        "outputs": {"9": {"images": []}, "5:1": {"text": ["x"]}},
        "meta": {"5:1": {"display_node": "5"}},
        "status": {
            "messages": [
                ["execution_start", {"prompt_id": "a", "timestamp": 1}],
                ["execution_success", {"prompt_id": "a", "timestamp": 2}],
            ]
        },
    }
}


def word(kind: str, **data: Any) -> str:
    return json.dumps({"type": kind, "data": {"prompt_id": "a", **data}})


def kinds(frames: list[str]) -> list[str]:
    return [json.loads(frame)["type"] for frame in frames]


def test_all_of_it_was_missed() -> None:
    prompts = UnfinishedPrompts()
    prompts.expect("a")
    frames = list(prompts.missed("a", HISTORY))
    assert kinds(frames) == ["execution_start", "executed", "executed", "execution_success", "executing"]
    assert [json.loads(frame)["data"].get("display_node") for frame in frames[1:3]] == ["9", "5"]
    assert json.loads(frames[-1])["data"] == {"node": None, "prompt_id": "a"}
    assert prompts.prompt_ids == []


def test_only_the_very_end_was_missed() -> None:
    prompts = UnfinishedPrompts()
    for frame in (word("execution_start"), word("executed", node="9"), word("executed", node="5:1")):
        prompts.observe(frame)
    prompts.observe(word("execution_success"))
    assert kinds(list(prompts.missed("a", HISTORY))) == ["executing"]


def test_nothing_was_missed() -> None:
    prompts = UnfinishedPrompts()
    prompts.observe(word("execution_start"))
    prompts.observe(word("executing", node=None))
    prompts.expect("a")
    assert prompts.prompt_ids == [], "the answer came after the end"


def test_what_the_history_does_not_know_is_still_waited_for() -> None:
    prompts = UnfinishedPrompts()
    prompts.expect("a")
    assert list(prompts.missed("a", {})) == []
    assert prompts.prompt_ids == ["a"]


def test_strange_words_do_no_harm() -> None:
    prompts = UnfinishedPrompts()
    for frame in ("execut", '"execut', "[]", '{"type": "executed"}', '{"type": "executed", "data": 1}'):
        prompts.observe(frame)
    for history in (None, {"a": 1}, {"a": {"status": {"messages": [1, [], [1, 2]]}, "outputs": []}}):
        prompts.expect("a")
        assert kinds(list(prompts.missed("a", history))) in ([], ["executing"])


def test_there_is_an_end_to_what_is_remembered() -> None:
    prompts = UnfinishedPrompts()
    for number in range(MOST_PROMPTS + 10):
        prompts.expect(str(number))
    assert len(prompts.prompt_ids) == MOST_PROMPTS
