"""Callbacks for ComfyUI's websocket messages."""

import logging
import threading
from typing import Any

import pytest

from comfyui_workflow.client import ComfyUI, Monitor
from comfyui_workflow.client import monitor as module
from comfyui_workflow.comfyui.event_stream import EventFeed
from tests.sandbox.graphs import quick_graph, slow_graph
from tests.sandbox.running_comfyui import RunningComfyUI, wait_until


class Heard:
    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def __call__(self, message: dict[str, Any]) -> None:
        self.messages.append(message)

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [message["data"] for message in self.messages if message["type"] == kind]


@pytest.fixture
def heard() -> Heard:
    return Heard()


def listening(comfyui: ComfyUI, *, kind: str, heard: Heard) -> Monitor:
    monitor = comfyui.monitor()
    monitor.register_callback(kind, heard)
    monitor.connect()
    assert monitor.wait_connected(10)
    return monitor


def test_messages_by_their_type(comfyui: ComfyUI, heard: Heard) -> None:
    everything = Heard()
    with comfyui.monitor() as monitor:
        monitor.register_callback("executed", heard)
        monitor.register_callback("*", everything)
        assert monitor.wait_connected(10)
        entry = comfyui.run(quick_graph(), timeout_s=20)
        wait_until(lambda: everything.of_type("execution_success"))
    assert [message["type"] for message in heard.messages] == ["executed"]
    assert heard.messages[0]["data"]["prompt_id"] == entry.prompt_id
    kinds = [message["type"] for message in everything.messages]
    assert {"status", "execution_start", "executing", "executed", "execution_success"} <= set(kinds)
    assert kinds.index("execution_start") < kinds.index("executed") < kinds.index("execution_success")


def test_once_for_a_message_however_often_it_is_registered(comfyui: ComfyUI, heard: Heard) -> None:
    with listening(comfyui, kind="executed", heard=heard) as monitor:
        monitor.connect()
        monitor.register_callback("executed", heard)
        monitor.register_callback("*", heard)
        comfyui.run(quick_graph(), timeout_s=20)
        wait_until(lambda: heard.of_type("execution_success"))
    assert len(heard.of_type("executed")) == 1
    assert len(heard.of_type("execution_start")) == 1


def test_one_that_raises_is_logged_and_called_again(
    comfyui: ComfyUI, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    def careless(message: dict[str, Any]) -> None:
        heard(message)
        raise ZeroDivisionError

    other = Heard()
    with caplog.at_level(logging.ERROR), comfyui.monitor() as monitor:
        monitor.register_callback("execution_success", careless)
        monitor.register_callback("execution_success", other)
        monitor.wait_connected(10)
        for color in (1, 2):
            comfyui.run(quick_graph(color=color), timeout_s=20)
        wait_until(lambda: len(other.messages) == 2)
    assert len(heard.messages) == 2
    assert "a callback for execution_success messages raised" in caplog.text
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("fault", [{"close_websockets": True}, {"deaf_websockets": True}])
def test_it_hears_again(
    comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI, heard: Heard, fault: dict[str, bool]
) -> None:
    with listening(comfyui, kind="execution_success", heard=heard):
        sandbox_comfyui.faults(**fault)
        comfyui.submit(quick_graph(color=1))
        sandbox_comfyui.faults(deaf_websockets=False)

        def hears_of_a_new_one() -> bool:
            prompt_id = comfyui.run(quick_graph(color=1), timeout_s=20).prompt_id
            return any(data["prompt_id"] == prompt_id for data in heard.of_type("execution_success"))

        wait_until(hears_of_a_new_one)


def test_a_deaf_socket_is_noticed_by_a_submission(
    comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed: list[EventFeed] = []
    monkeypatch.setattr(EventFeed, "renew", lambda feed: renewed.append(feed))  # noqa: PLW0108 - only a function becomes a method
    with listening(comfyui, kind="executing", heard=heard):
        comfyui.submit(quick_graph(color=1))
        wait_until(
            lambda: heard.messages and heard.messages[-1]["data"]["node"] is None, what="the last word"
        )
        sandbox_comfyui.faults(deaf_websockets=True)
        comfyui.submit(quick_graph(color=2))
        wait_until(lambda: renewed)
    assert len(renewed) == 1


def test_a_new_socket_does_not_tell_the_running_node_twice(
    comfyui: ComfyUI, sandbox_comfyui: RunningComfyUI, heard: Heard
) -> None:
    sandbox_comfyui.pace.allow(1)
    with listening(comfyui, kind="*", heard=heard):
        prompt_id = comfyui.submit(slow_graph(steps=3)).prompt_id
        wait_until(lambda: heard.of_type("executing"))
        before = len(heard.of_type("status"))
        sandbox_comfyui.faults(close_websockets=True)
        wait_until(lambda: len(heard.of_type("status")) > before)
        sandbox_comfyui.pace.allow(100)
        comfyui.wait(prompt_id, timeout_s=20)
    assert [data["node"] for data in heard.of_type("executing")].count("1") == 1


def test_a_slow_one_holds_nobody_up(comfyui: ComfyUI) -> None:
    go_on = threading.Event()
    with comfyui.monitor() as monitor:
        monitor.register_callback("*", lambda _message: go_on.wait(20))
        monitor.wait_connected(10)
        for color in range(3):
            comfyui.run(quick_graph(color=color), timeout_s=20)
        go_on.set()


def test_one_that_is_far_behind_loses_the_oldest(
    comfyui: ComfyUI, heard: Heard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 5)
    go_on = threading.Event()
    with comfyui.monitor() as monitor:
        monitor.register_callback("*", lambda message: (go_on.wait(20), heard(message)))
        monitor.wait_connected(10)
        last = [comfyui.run(quick_graph(color=color), timeout_s=20).prompt_id for color in range(4)][-1]
        go_on.set()
    assert "messages behind" in caplog.text
    assert heard.messages[-1]["data"].get("prompt_id", last) == last


def test_after_the_end_nothing_is_told(comfyui: ComfyUI, heard: Heard) -> None:
    monitor = listening(comfyui, kind="execution_success", heard=heard)
    monitor.disconnect()
    monitor.disconnect()
    comfyui.run(quick_graph(color=1), timeout_s=20)
    assert heard.messages == []
    with monitor:
        monitor.wait_connected(10)
        comfyui.run(quick_graph(color=2), timeout_s=20)
        wait_until(lambda: heard.messages)  # the history may know of the end before the callback does
        monitor.unregister_callback("execution_success", heard)
        comfyui.run(quick_graph(color=3), timeout_s=20)
    assert len(heard.messages) == 1


def test_a_callback_may_end_it(comfyui: ComfyUI, heard: Heard) -> None:
    monitor = comfyui.monitor()

    def end(message: dict[str, Any]) -> None:
        heard(message)
        monitor.disconnect()

    monitor.register_callback("execution_success", end)
    with monitor:
        monitor.wait_connected(10)
        comfyui.run(quick_graph(), timeout_s=20)
        wait_until(lambda: heard.messages)
