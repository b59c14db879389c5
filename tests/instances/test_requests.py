"""Calls to an instance: limited in time, and independent of other instances."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from comfyui_workflow.errors import ComfyUIUnavailable, ConnectionFailed, ServerBusy
from comfyui_workflow.instances import requests
from comfyui_workflow.instances.model import Instance
from comfyui_workflow.instances.requests import MOST_AT_ONCE, MOST_PER_INSTANCE, InstanceRequests
from comfyui_workflow.instances.schema import read_instance
from comfyui_workflow.instances.state import InstanceState, Reachability
from comfyui_workflow.sessions.session import InstanceKey
from comfyui_workflow.ssh.pool import Pool

WAIT_S = 10.0


class OpenLink:
    is_alive = True

    def __init__(self, key: InstanceKey) -> None:
        self.host = key.address.host

    def reach(self, port: int | None = None, *, again: bool = False) -> bool:
        return True

    def close(self) -> None:
        self.is_alive = False


def instance(name: str) -> Instance:
    return read_instance({"name": name, "ssh_connection": f"root@{name}"}, name)


def instance_requests(
    open_link: Callable[[InstanceKey], Any] = OpenLink,
    state_of: Callable[[str], InstanceState] = lambda _: InstanceState(),
) -> InstanceRequests:
    return InstanceRequests(Pool(open_link), state_of)


class Asking:
    """Call in a thread that waits until it is released."""

    def __init__(self, instance_requests: InstanceRequests, name: str) -> None:
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        self.answer: object = None
        self._thread = threading.Thread(target=self._ask, args=(instance_requests, name))
        self._thread.start()

    @property
    def is_waiting(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> object:
        self.may_end.set()
        self._thread.join(WAIT_S)
        return self.answer

    def _ask(self, instance_requests: InstanceRequests, name: str) -> None:
        try:
            self.answer = instance_requests.ask(instance(name), self._work)
        except (ServerBusy, ConnectionFailed) as error:
            self.has_begun.set()
            self.answer = error

    def _work(self, session: Any) -> str:
        self.has_begun.set()
        self.may_end.wait(WAIT_S)
        return str(session.host)


def test_the_answer_is_what_the_work_found() -> None:
    assert instance_requests().ask(instance("a"), lambda session: session.host) == "a"  # type: ignore[attr-defined]


def test_what_goes_wrong_is_told_as_it_is() -> None:
    def refuse(_key: InstanceKey) -> Any:
        raise ConnectionFailed("refused")

    def fail(_link: Any) -> None:
        raise ComfyUIUnavailable("not running")

    with pytest.raises(ConnectionFailed, match="refused"):
        instance_requests(refuse).ask(instance("a"), lambda _: None)
    with pytest.raises(ComfyUIUnavailable, match="not running"):
        instance_requests().ask(instance("a"), fail)
    with pytest.raises(TimeoutError, match="of the work"):
        instance_requests().ask(instance("a"), lambda _: (_ for _ in ()).throw(TimeoutError("of the work")))


def test_one_that_is_known_to_be_away_is_not_asked() -> None:
    away = InstanceState(reachability=Reachability.UNREACHABLE, trouble="Nobody answers")
    with pytest.raises(ConnectionFailed, match="a cannot be reached: Nobody answers"):
        instance_requests(pytest.fail, lambda _: away).ask(instance("a"), pytest.fail)


def test_one_that_is_slow_makes_no_other_wait_and_is_not_asked_by_many() -> None:
    shared = instance_requests()
    slow = [Asking(shared, "slow") for _ in range(MOST_PER_INSTANCE)]
    for each in slow:
        assert each.has_begun.wait(WAIT_S)
    with pytest.raises(ServerBusy, match="slow is answering 2 requests"):
        shared.ask(instance("slow"), pytest.fail)
    assert shared.ask(instance("quick"), lambda session: session.host) == "quick"  # type: ignore[attr-defined]
    assert all(each.is_waiting for each in slow)
    assert [each.end() for each in slow] == ["slow"] * MOST_PER_INSTANCE
    assert shared.ask(instance("slow"), lambda session: session.host) == "slow"  # type: ignore[attr-defined]


def test_most_of_the_threads_are_left_for_others() -> None:
    shared = instance_requests()
    asked = [Asking(shared, f"gpu{number}") for number in range(MOST_AT_ONCE)]
    for each in asked:
        assert each.has_begun.wait(WAIT_S)
    with pytest.raises(ServerBusy, match="8 requests"):
        shared.ask(instance("one-more"), pytest.fail)
    assert [each.end() for each in asked] == [f"gpu{number}" for number in range(MOST_AT_ONCE)]


def test_one_that_does_not_answer_is_given_up_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "TIMEOUT_S", 0.05)
    monkeypatch.setattr(requests, "_GRACE_S", 0.0)
    shared = instance_requests()
    frozen = [Asking(shared, "frozen") for _ in range(MOST_PER_INSTANCE)]
    for each in frozen:
        each._thread.join(WAIT_S)
        assert "frozen has not answered" in str(each.answer)
    with pytest.raises(ServerBusy):
        shared.ask(instance("frozen"), pytest.fail)
    for each in frozen:
        each.may_end.set()


def test_one_that_lets_nobody_in_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "TIMEOUT_S", 0.05)
    may_end = threading.Event()

    def hang(key: InstanceKey) -> Any:
        may_end.wait(WAIT_S)
        return OpenLink(key)

    with pytest.raises(ConnectionFailed, match="No connection to root@a:22 within"):
        instance_requests(hang).ask(instance("a"), pytest.fail)
    may_end.set()
