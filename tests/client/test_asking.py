"""Requests to a ComfyUI; another program at its address gives an error message, never a traceback."""

import json
from collections.abc import Callable, Iterator

import pytest

from comfyui_workflow.client import ComfyUI, ComfyUIError, InvalidRequest, Severity
from tests.fuzz.peer import Peer
from tests.sandbox.graphs import quick_graph
from tests.sandbox.running_comfyui import RunningComfyUI

GARBAGE = [b"", b"<html>", b"\xff\xfe\x00", b"[]", b"null", b"7", b'"text"', b"[" * 3000, b'{"a": NaN'] + [
    json.dumps(value).encode()
    for value in ({"queue_running": 7, "queue_pending": [[]]}, {"system": [], "devices": {"a": 1}}, {"x": []})
]
QUESTIONS: list[Callable[[ComfyUI], object]] = [
    lambda comfyui: comfyui.queue(),
    lambda comfyui: comfyui.history("x"),
    lambda comfyui: comfyui.recent_history(),
    lambda comfyui: comfyui.system_stats(),
    lambda comfyui: comfyui.definitions(),
    lambda comfyui: comfyui.validate(quick_graph()),
    lambda comfyui: comfyui.submit(quick_graph()),
    lambda comfyui: comfyui.output_files("x"),
    lambda comfyui: comfyui.interrupt("x"),
]
PATHS = [
    "GET /prompt", "POST /prompt", "GET /queue", "GET /history", "GET /history/x", "GET /system_stats",
    "GET /object_info",
]  # fmt: skip


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


@pytest.mark.parametrize("status", ["200 OK", "500 No", "302 Found", "404 Not"])
def test_garbage_is_one_of_our_errors_or_read(peer: Peer, status: str) -> None:
    for body in GARBAGE:
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nLocation: http://10.0.0.1/\r\n\r\n"
        peer.answers = dict.fromkeys(PATHS, head.encode() + body)
        with ComfyUI(peer.url, patience_s=0) as comfyui:
            for ask in QUESTIONS:
                try:
                    ask(comfyui)
                except ComfyUIError as error:
                    assert str(error)


def test_a_silent_peer_is_given_up(peer: Peer) -> None:
    peer.fallback = b""
    with ComfyUI(peer.url, patience_s=0, answer_timeout_s=0.5) as comfyui, pytest.raises(ComfyUIError):
        comfyui.queue()


@pytest.mark.parametrize("url", ["ftp://gpu", "http://", "http://gpu:port", "//", ""])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(InvalidRequest, match="example: http"):
        ComfyUI(url)


def test_what_it_tells_of_itself(comfyui: ComfyUI) -> None:
    system = comfyui.system_stats()
    assert system.comfyui_version == "0.33.0"
    assert (system.devices[0].vram_total or 0) > 0
    assert "SaveImage" in comfyui.definitions()


def test_queue_and_history(comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI) -> None:
    sandbox_comfyui.faults(hold=True)
    first, second = (comfyui.submit(quick_graph(color=color)).prompt_id for color in (1, 2))
    snapshot = comfyui.queue()
    assert (snapshot.running, snapshot.pending) == ((), (first, second))
    assert (snapshot.position(first), snapshot.position(second)) == (0, 1)
    assert comfyui.history(first) is None
    sandbox_comfyui.faults(hold=False)
    comfyui.wait(second, timeout_s=20)
    assert [entry.prompt_id for entry in comfyui.recent_history()] == [first, second]
    assert [entry.prompt_id for entry in comfyui.recent_history(1)] == [second]


def test_freeing_forgets_kept_results(comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI) -> None:
    first = comfyui.run(quick_graph(), timeout_s=20)
    again = comfyui.run(quick_graph(), timeout_s=20)
    assert [output.key for output in again.outputs] == [output.key for output in first.outputs]
    comfyui.free()
    anew = comfyui.run(quick_graph(), timeout_s=20)
    assert [output.key for output in anew.outputs] != [output.key for output in first.outputs]


def test_a_graph_that_would_run(comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI) -> None:
    assert comfyui.validate(quick_graph()).would_run
    sandbox_comfyui.faults(answers=[{"path": "/object_info", "mode": "500", "times": 9}])
    assert comfyui.validate(quick_graph(color=2)).would_run, "what is known is believed"
    assert sandbox_comfyui.executions() == []


def test_a_graph_that_would_not(comfyui: ComfyUI) -> None:
    graph = quick_graph()
    graph["1"]["class_type"] = "EmptyImag"
    verdict = comfyui.validate(graph)
    assert not verdict.would_run
    (finding,) = [each for each in verdict.findings if each.severity is Severity.ERROR]
    assert (finding.node_id, finding.nearest[0]) == ("1", "EmptyImage")


@pytest.mark.parametrize(
    "graph",
    [None, [], {}, 7, "x", {"1": []}, {"1": {}}, {"nodes": [], "links": []}],
)
def test_what_is_no_graph_at_all(graph: object) -> None:
    with ComfyUI("http://127.0.0.1:1", patience_s=0) as nowhere:
        verdict = nowhere.validate(graph, structure_only=True)
        assert (verdict.would_run, len(verdict.findings)) == (False, 1)
        assert nowhere.validate(quick_graph(), structure_only=True).would_run
