"""Entries of prompts that were executed one after the other, joined."""

from typing import Any

from comfyui_workflow.comfyui.history import HistoryEntry, Outcome, merged, read_history


def entry(
    prompt_id: str, outputs: dict[str, Any], *, at_ms: int, end: str = "execution_success", cached: str = ""
) -> HistoryEntry:
    messages = [
        ["execution_start", {"timestamp": at_ms}],
        ["execution_cached", {"nodes": list(cached)}],
        [end, {"timestamp": at_ms + 1000}],
    ]
    return read_history(prompt_id, {"outputs": outputs, "status": {"messages": messages}})


def image(name: str) -> dict[str, Any]:
    return {"images": [{"filename": name, "subfolder": "", "type": "output"}]}


def test_the_results_are_those_of_both() -> None:
    first = entry("a", {"5": {"unfinished_batch": [True]}, "6": image("a.png")}, at_ms=1_000, cached="12")
    second = entry("b", {"5": image("c.gif"), "6": image("b.png")}, at_ms=5_000, cached="23")
    both = merged(first, second)
    assert [output.filename for output in both.outputs] == ["a.png", "c.gif", "b.png"]
    assert (both.prompt_id, both.execution_s, both.cached) == ("a", 2.0, {"2"})
    assert [moment.timestamp() for moment in both.window if moment] == [1.0, 6.0]
    files = [output.made_after.timestamp() for output in both.outputs if output.made_after]
    assert files == [1.0, 5.0, 5.0], "each file was made by its own prompt"


def test_texts_of_one_node_are_joined() -> None:
    first = entry("a", {"5": {"text": ["one"]}, "6": {"text": ["only here"]}}, at_ms=1_000)
    second = entry("b", {"5": {"text": ["two"]}}, at_ms=5_000)
    texts = {output.node_id: output.text for output in merged(first, second).outputs}
    assert texts == {"5": "one\ntwo", "6": "only here"}


def test_the_outcome_is_that_of_the_last() -> None:
    first = entry("a", {}, at_ms=1_000)
    assert merged(first, entry("b", {}, at_ms=5_000, end="execution_error")).outcome is Outcome.ERROR
    untimed = read_history("c", {"outputs": {}})
    assert merged(first, untimed).execution_s is None
