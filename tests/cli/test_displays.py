"""Displays of a run on a terminal and in a log."""

import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from comfyui_workflow.cli.live_display import LiveDisplay
from comfyui_workflow.cli.node_table import visible_nodes
from comfyui_workflow.cli.plain_display import PlainDisplay
from comfyui_workflow.client.documents import NodeDocument, ProgressDocument
from comfyui_workflow.runs.model import NodeStatus
from tests.cli.documents import node, progress

SAMPLER = {"node_type": "KSampler", "title": "The sampler", "progress": 45.0, "message": "Step 45/100"}


def test_a_log_gets_a_line_for_each_change() -> None:
    said: list[str] = []
    display = PlainDisplay(said.append)
    display.show(progress(node("1"), status="queued", phase="queued", queue_position=2))
    display.show(progress(node("1"), status="queued", phase="queued", queue_position=2))
    display.show(progress(node("1", "executing")))
    display.show(progress(node("1", "executing", progress=12.0, message="Step 12/100")))
    display.show(progress(node("1", "executing", progress=13.0, message="Step 13/100")))
    display.show(progress(node("1", "executed", progress=100.0), notices=["Twice submitted"]))
    assert said == [
        "Waiting in the queue of the instance, 2 ahead",
        "Running",
        "[0/1] Class1: running",
        "[0/1] Class1: Step 12/100",
        "! Twice submitted",
        "[1/1] Class1: done",
    ]


def test_trouble_is_told_once_and_again_when_it_comes_back() -> None:
    said: list[str] = []
    display = PlainDisplay(said.append)
    for _ in range(3):
        display.show_trouble("away for a while")
    display.show(progress())
    display.show_trouble("away again")
    assert said == ["away for a while", "Running", "away again"]


def test_a_terminal_shows_every_node_and_what_happens_now() -> None:
    picture = _drawn(progress(node("1", "executed"), node("2", "executing", **SAMPLER), node("3")))
    for part in ("a lake", "1/3 nodes", "✓  Class1", "●  KSampler  The sampler", "Step 45/100", "○  Class3"):
        assert part in picture


def test_what_became_of_it_is_told_at_the_end() -> None:
    failed = node("1", "failed", message="Out of memory")
    assert "Failed: Out of memory" in _drawn(progress(failed, status="failed", error_message="Out of memory"))
    ended = {"end_time": "2026-01-01T11:02:03Z", "status": "completed"}
    assert "Completed in 1:02:03" in _drawn(progress(**ended))


def test_names_cannot_draw_on_the_terminal() -> None:
    picture = _drawn(
        progress(node("1", title="[bold]\x1b[2J\r\nx", message="\x07"), notices=["\x1b]0;title\x07"])
    )
    assert "\x1b" not in picture
    assert "\x07" not in picture
    assert "[bold]" in picture


def test_many_nodes_leave_room_for_the_rest() -> None:
    nodes = [node(str(i), "executed" if i < 40 else "pending") for i in range(100)]
    picture = _drawn(progress(*nodes), height=24)
    assert len(picture.splitlines()) < 24
    assert "Class40" in picture
    assert picture.count(" more\n") == 2


@pytest.mark.parametrize("width", [40, 60, 76, 80, 100, 200])
def test_a_narrow_terminal_has_a_line_for_each_node_too(width: int) -> None:
    nodes = (
        node("1", "executed", title="a long title " * 9),
        node("2", "executing", **SAMPLER),
        node("3", "failed", message="It is not possible to do this. " * 9, node_type="LongClass" * 9),
    )
    lines = _drawn(progress(*nodes), width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert [line[:9] for line in lines[4:7]] == ["✓  Class1", "●  KSampl", "✗  LongCl"]
    assert "Step 45/100" in lines[5]
    assert "It is not po" in lines[6]


def test_a_node_has_taken_as_long_as_the_server_says_or_until_now() -> None:
    display = LiveDisplay(_console(), now=lambda: datetime(2026, 1, 1, 10, 1, 15, tzinfo=UTC))
    began = {"start_time": "2026-01-01T10:01:02.250Z"}
    nodes = [
        node("1", "executed"),
        node("2", "executed", **began, end_time="2026-01-01T10:01:04.750Z"),
        node("3", "executing", **began),
        node("4"),
    ]
    display.show(progress(*nodes))
    lines = _text(display).splitlines()
    assert "1:15" in lines[1]
    assert [line.partition("Class")[2].split()[1:] for line in lines[4:8]] == [
        [],
        ["2.5", "s"],
        ["12.8", "s"],
        [],
    ]


@given(st.integers(0, 60), st.integers(0, 60), st.integers(3, 40))
def test_the_node_at_work_is_always_in_sight(done: int, pending: int, room: int) -> None:
    states = [NodeStatus.EXECUTED] * done + [NodeStatus.EXECUTING] + [NodeStatus.PENDING] * pending
    nodes = tuple(NodeDocument(node_id=str(i), node_type="A", status=s) for i, s in enumerate(states))
    before, shown, after = visible_nodes(nodes, room)
    assert NodeStatus.EXECUTING in [node.status for node in shown]
    assert len(shown) + (before > 0) + (after > 0) <= room
    assert nodes[before : len(nodes) - after] == shown


def _drawn(document: ProgressDocument, *, width: int = 100, height: int = 40) -> str:
    display = LiveDisplay(_console(width, height))
    display.show(document)
    return _text(display, width, height)


def _console(width: int = 100, height: int = 40) -> Console:
    return Console(file=io.StringIO(), width=width, height=height)


def _text(display: LiveDisplay, width: int = 100, height: int = 40) -> str:
    console = _console(width, height)
    with console.capture() as captured:
        console.print(display.render())
    return captured.get()
