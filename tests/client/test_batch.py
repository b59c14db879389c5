"""Many graphs on one ComfyUI: in order, a few at a time, each exactly once."""

import itertools
import time
from fractions import Fraction
from typing import Any

import pytest

from comfyui_workflow.client import (
    BatchResult,
    ComfyUI,
    InvalidGraph,
    InvalidRequest,
    PromptFailed,
    PromptRefused,
    TimedOut,
)
from comfyui_workflow.client.prompts import ActivePrompt, Prompts
from comfyui_workflow.errors import Stopped
from comfyui_workflow.workflows.graph import Graph
from tests.sandbox.graphs import graph_with_a_link_to_nowhere, quick_graph, slow_graph
from tests.sandbox.running_comfyui import RunningComfyUI, wait_until


def started(running: RunningComfyUI) -> list[str]:
    return [entry["prompt_id"] for entry in running.executions() if entry["event"] == "start"]


def quick_graphs(count: int) -> list[Graph]:
    return [quick_graph(color=color + 1) for color in range(count)]


def failing_graph() -> Graph:
    graph = quick_graph()
    graph["3"] = {"class_type": "LabRaise", "inputs": {"message": "it broke", "kind": "ValueError"}}
    graph["2"]["inputs"]["images"] = ["3", 0]
    return graph


def test_results_are_in_order_and_each_ran_once(comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI) -> None:
    results = comfyui.batch(quick_graphs(8), timeout_s=20)
    assert [result.index for result in results] == list(range(8))
    assert all(result.is_success and result.error is None for result in results)
    assert started(sandbox_comfyui) == [result.prompt_id for result in results]


def test_a_value_that_is_none_of_json_is_the_error_of_its_graph(comfyui: ComfyUI) -> None:
    """A `Fraction` stands for the number types of other packages, such as numpy."""
    foreign, numbered = quick_graph(color=2), {int(name): node for name, node in quick_graph().items()}
    foreign["1"]["inputs"]["color"] = Fraction(3)
    first, second, third, last = comfyui.batch([quick_graph(), foreign, numbered, quick_graph(color=3)])
    assert first.is_success and last.is_success
    assert isinstance(second.error, InvalidGraph)
    assert "workflow.1.inputs.color is of the type fractions.Fraction" in str(second.error)
    assert str(third.error) == 'Node ids must be texts: write "1" instead of 1'
    for submit in (comfyui.submit, comfyui.run):
        with pytest.raises(InvalidGraph, match=r"fractions\.Fraction"):
            submit(foreign)
    with pytest.raises(InvalidGraph, match=r"fractions\.Fraction"):
        comfyui.submit(quick_graph(), extra_data={"seed": Fraction(3)})


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_no_more_than_so_many_are_in_the_queue(
    comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI, at_once: int
) -> None:
    sandbox_comfyui.faults(step_delay_s=0.02)
    most = 0
    for result in comfyui.as_completed(quick_graphs(6), at_once=at_once, timeout_s=20):
        assert result.is_success
        snapshot = comfyui.queue()
        most = max(most, len(snapshot.running) + len(snapshot.pending))
    assert most <= at_once
    sandbox_comfyui.faults(hold=True)
    results = comfyui.as_completed(quick_graphs(6), at_once=at_once, timeout_s=1)
    late = next(results)
    assert isinstance(late.error, TimedOut)
    results.close()  # type: ignore[attr-defined] - it is a generator


def test_one_that_fails_does_not_keep_the_others(comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI) -> None:
    refused = quick_graph()
    refused["1"]["inputs"]["width"] = -1
    graphs = [quick_graph(color=1), failing_graph(), graph_with_a_link_to_nowhere(), refused, quick_graph()]
    results = comfyui.batch(graphs, timeout_s=20)
    assert [result.is_success for result in results] == [True, False, False, False, True]
    kinds = [PromptFailed, InvalidGraph, PromptRefused]
    assert [type(result.error) for result in results[1:4]] == kinds
    assert [result.prompt_id is None for result in results] == [False, False, True, True, False]
    assert len(started(sandbox_comfyui)) == 3


def test_stopping_at_an_error(comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI) -> None:
    graphs = [quick_graph(color=1), failing_graph(), *quick_graphs(20)]
    results = comfyui.batch(graphs, stop_at_error=True, timeout_s=20)
    assert isinstance(results[1].error, PromptFailed)
    left_out = [result for result in results if isinstance(result.error, Stopped)]
    assert len(left_out) >= 18, "what was in the queue already may run"
    assert [result.index for result in results] == list(range(22))
    assert len(started(sandbox_comfyui)) == 22 - len(left_out)


def test_submissions_are_staggered(comfyui: ComfyUI, monkeypatch: pytest.MonkeyPatch) -> None:
    sent_at_s: list[float] = []
    send = Prompts.send

    def sending(*arguments: Any) -> ActivePrompt:
        sent_at_s.append(time.monotonic())
        return send(*arguments)

    monkeypatch.setattr(Prompts, "send", sending)
    comfyui.batch(quick_graphs(4), stagger_s=0.3, timeout_s=20)
    assert len(sent_at_s) == 4
    assert min(later - earlier for earlier, later in itertools.pairwise(sent_at_s)) > 0.29


def test_leaving_early_submits_nothing_more(comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI) -> None:
    sandbox_comfyui.faults(step_delay_s=0.05)
    for result in comfyui.as_completed(quick_graphs(50), timeout_s=20):
        assert result.index == 0
        break
    wait_until(lambda: comfyui.queue().running == comfyui.queue().pending == ())
    count = len(started(sandbox_comfyui))
    assert count < 25
    with pytest.raises(AssertionError):
        wait_until(lambda: len(started(sandbox_comfyui)) > count, limit_s=0.5)


def test_one_that_takes_too_long_gives_its_place_to_the_next(
    comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI
) -> None:
    sandbox_comfyui.pace.allow(0)
    results = comfyui.as_completed([slow_graph(), *quick_graphs(2)], at_once=1, timeout_s=0.5)
    assert isinstance(next(results).error, TimedOut)
    sandbox_comfyui.pace.allow(100)
    assert sum(map(is_success, results)) >= 1


def test_answers_that_are_lost_in_a_batch(comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI) -> None:
    sandbox_comfyui.faults(answers=[{"path": "/prompt", "mode": "drop", "method": "POST", "times": 3}])
    results = comfyui.batch(quick_graphs(5), timeout_s=20)
    assert all(map(is_success, results))
    assert started(sandbox_comfyui) == [result.prompt_id for result in results]


def test_nothing_to_do(comfyui: ComfyUI) -> None:
    assert comfyui.batch([]) == []
    with pytest.raises(InvalidRequest):
        comfyui.batch([quick_graph()], at_once=0)


def is_success(result: BatchResult) -> bool:
    return result.is_success
