"""The response cache: one response for simultaneous requests, invalidated by every change."""

import threading
from collections.abc import Callable

import pytest
from flask import Flask, Response, jsonify

from comfyui_workflow.api.response_cache import SHARED_S, ResponseCache
from comfyui_workflow.runs import events
from tests.api.conftest import Api
from tests.api.test_workflow import GRAPH, SSH

LIST = "/comfyui/workflow"


class Asked:
    """A cache of numbered responses, with a clock and a version that the test sets."""

    def __init__(self) -> None:
        self.now_s, self.version, self.made, self.takes_s = 100.0, 1, 0, 0.0
        self.cache = ResponseCache(lambda: self.version, lambda: self.now_s)
        self.app = Flask("test")

    def ask(self, question: str = "a", meanwhile: Callable[[], object] | None = None) -> int:
        """Returns the number of the response that the cache delivers."""

        def make() -> Response:
            self.made += 1
            answer = jsonify(self.made)
            self.now_s += self.takes_s
            if meanwhile is not None:
                meanwhile()
            return answer

        with self.app.test_request_context():
            found: int = self.cache.response_of(question, make).json
            return found


@pytest.fixture
def asked() -> Asked:
    return Asked()


def test_who_asks_soon_gets_the_same(asked: Asked) -> None:
    assert [asked.ask(), asked.ask(), asked.ask("b"), asked.ask()] == [1, 1, 2, 1]
    asked.now_s += SHARED_S
    assert [asked.ask("b"), asked.ask(), asked.ask()] == [3, 4, 4]


def test_what_was_dear_is_shared_for_longer(asked: Asked) -> None:
    asked.takes_s = 0.1
    assert asked.ask() == 1
    asked.now_s += 1.99
    assert asked.ask() == 1
    asked.now_s += 0.02
    assert asked.ask() == 2


def test_a_change_ends_it(asked: Asked) -> None:
    assert asked.ask() == 1
    asked.version += 1
    assert [asked.ask(), asked.ask()] == [2, 2]
    asked.cache.invalidate()
    assert [asked.ask(), asked.ask()] == [3, 3]


def test_what_was_made_before_a_change_is_not_given_after_it(asked: Asked) -> None:
    assert asked.ask(meanwhile=asked.cache.invalidate) == 1
    assert asked.ask() == 2


def test_nothing_is_kept_for_ever(asked: Asked) -> None:
    for number in range(50):
        asked.ask(str(number))
        asked.now_s += 1
    assert len(asked.cache._entries) == 1


def test_an_error_is_not_shared(asked: Asked) -> None:
    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError):
        asked.ask(meanwhile=fail)
    assert asked.ask() == 2


def test_who_changes_something_sees_it_in_the_list(api: Api) -> None:
    def line(query: str = "") -> dict[str, object]:
        found: dict[str, object] = api.client.get(LIST + query).json["workflows"][0]
        return found

    for number in range(3):
        body = {"ssh_connection": SSH, "workflow": GRAPH, "workflow_name": str(number)}
        run_id = api.client.post(f"{LIST}/execute", json=body).json["workflow_id"]
        for query in ("", "?grouped=true"):
            assert line(query)["workflow_id"] == run_id
            for priority in (5, 6):
                url = f"{LIST}/{run_id}/priority"
                assert api.client.post(url, json={"priority": priority}).status_code == 200
                assert line(query)["priority"] == priority
        assert api.client.post(f"{LIST}/{run_id}/cancel").status_code == 200
        assert line()["cancel_requested"] is True
        api.journal.record(run_id, events.ExecutionStarted())
        assert line()["status"] == "executing"
        api.journal.record(run_id, events.RunCancelled())
        assert line()["status"] == "cancelled"


def test_what_is_asked_otherwise_is_another_answer(api: Api) -> None:
    body = {"ssh_connection": SSH, "workflow": GRAPH}
    for _ in range(3):
        api.client.post(f"{LIST}/execute", json=body)
    counts = [len(api.client.get(f"{LIST}?limit={limit}").json["workflows"]) for limit in (1, 2, 3, 1)]
    assert counts == [1, 2, 3, 1]
    assert api.client.get(f"{LIST}?limit=x").status_code == 400


def test_many_who_ask_at_once_all_get_it(api: Api) -> None:
    api.client.post(f"{LIST}/execute", json={"ssh_connection": SSH, "workflow": GRAPH})
    totals: list[int] = []

    def look() -> None:
        with api.app.test_client() as client:
            totals.extend(client.get(LIST).json["total"] for _ in range(5))

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert totals == [1] * 40
