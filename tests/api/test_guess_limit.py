"""Guesses of the API token are delayed; the right token always works."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
import requests

from comfyui_workflow.access.login_cookie import COOKIE, LASTS_S, cookie_value
from comfyui_workflow.api.guess_limit import DELAY_PER_GUESS_S, FORGET_INTERVAL_S, FREE_GUESSES, TokenGuesses
from comfyui_workflow.app import refusals
from comfyui_workflow.server.body_limits import BodyLimits
from comfyui_workflow.server.http import REQUEST_THREADS, HttpThread
from tests.api.conftest import Api

TOKEN = "the-right-token-of-this-server"
STATE = "/comfyui/workflow/state"
LIMIT_S = 30.0
Try = Callable[[Api, str], int]


@pytest.fixture
def api(make_api: Callable[..., Api]) -> Api:
    return make_api(api_token=TOKEN, port=0)


def bearer(api: Api, token: str) -> int:
    return api.client.get(STATE, headers={"Authorization": f"Bearer {token}"}).status_code


def bare(api: Api, token: str) -> int:
    """Some clients of RunPod send the token without the scheme."""
    return api.client.get("/v2/any/health", headers={"Authorization": token}).status_code


def cookie(api: Api, token: str, path: str = STATE) -> int:
    browser = api.app.test_client(use_cookies=False)
    made = cookie_value(token, int(time.time()))
    return browser.get(path, headers={"Cookie": f"{COOKIE}={made}"}).status_code


def page(api: Api, token: str) -> int:
    return cookie(api, token, "/")


def form(api: Api, token: str) -> int:
    return api.app.test_client(use_cookies=False).post("/login", data={"token": token}).status_code


@pytest.mark.parametrize("attempt", [bearer, bare, cookie, page, form])
def test_an_address_that_guesses_is_told_to_wait_and_the_right_token_works(api: Api, attempt: Try) -> None:
    right = attempt(api, TOKEN)
    statuses = [attempt(api, f"guess {number}") for number in range(FREE_GUESSES + 5)]
    assert statuses[0] == (200 if attempt is page else 401)
    assert statuses[-5:] == [429] * 5
    assert attempt(api, TOKEN) == right
    for other in (bearer, bare, cookie, page, form):
        assert other(api, TOKEN) in (200, 303), other
        assert other(api, f"{other} wrong") == 429, other


def test_it_says_when_to_come_again_and_why(api: Api) -> None:
    for number in range(FREE_GUESSES + 1):
        bearer(api, f"guess {number}")
    answer = api.client.get(STATE, headers={"Authorization": "Bearer wrong"})
    assert "Too many wrong API tokens" in answer.json["message"]
    assert int(answer.headers["Retry-After"]) > 0
    answer = api.client.post("/login", data={"token": "wrong too"})
    assert (answer.mimetype, "Too many wrong API tokens" in answer.text) == ("text/html", True)
    assert int(answer.headers["Retry-After"]) > 0


def test_what_was_tried_before_or_is_no_guess_is_not_counted(api: Api) -> None:
    ended = cookie_value(TOKEN, int(time.time()) - LASTS_S - 5)
    browser = api.app.test_client(use_cookies=False)
    for _ in range(3 * FREE_GUESSES):
        assert bearer(api, "an old token") == 401
        assert browser.get(STATE).status_code == 401
        assert browser.get(STATE, headers={"Cookie": f"{COOKIE}={ended}"}).status_code == 401
        assert form(api, "") == 401
    assert bearer(api, "a new guess") == 401


def test_many_guesses_in_one_request_are_many(api: Api) -> None:
    cookies = "; ".join(f"{COOKIE}=1.{number}" for number in range(100))
    browser = api.app.test_client(use_cookies=False)
    assert browser.get(STATE, headers={"Cookie": cookies}).status_code == 429


@dataclass
class Hands:
    at_s: float = 0.0

    def now_s(self) -> float:
        return self.at_s


def test_guesses_are_forgiven_with_time_and_counted_for_each_address() -> None:
    hands = Hands()
    guesses = TokenGuesses(hands.now_s)
    waits = [guesses.add("192.0.2.1", [str(number)]) for number in range(1000)]
    assert waits[: FREE_GUESSES + 1] == [0.0] * FREE_GUESSES + [FORGET_INTERVAL_S]
    assert guesses.add("192.0.2.2", ["x"]) == 0.0
    hands.at_s += waits[-1] + FORGET_INTERVAL_S
    assert guesses.add("192.0.2.1", ["y"]) == 0.0
    for number in range(100):
        guesses.add(f"2001:db8::{number:x}", [f"a {number}"])
    assert guesses.add("2001:db8::ffff", ["b"]) > 0
    assert guesses.add("2001:db8:1::1", ["b"]) == 0.0
    assert guesses.add("::ffff:192.0.2.9", ["b"]) == 0.0
    assert guesses.add("", ["c"]) == 0.0


@dataclass
class Served:
    api: Api

    @property
    def app(self) -> object:
        return self.api.app

    @property
    def refusals(self) -> BodyLimits:
        return refusals(self.api.settings)

    def start(self) -> int:
        return 0

    def end_waits(self) -> None:
        pass

    def stop(self) -> None:
        pass


@pytest.fixture
def url(api: Api) -> Iterator[str]:
    http = HttpThread(Served(api), api.settings)  # type: ignore[arg-type]
    http.start()
    yield http.url
    http.stop()


def ask(url: str, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return requests.get(url + STATE, headers=headers, timeout=LIMIT_S).status_code


def test_the_answer_to_a_guess_is_kept_back_for_a_while(url: str) -> None:
    for number in range(FREE_GUESSES):
        assert ask(url, str(number)) == 401
    began_s = time.monotonic()
    assert ask(url, "one more") == 429
    assert time.monotonic() - began_s > 0.9 * DELAY_PER_GUESS_S


def test_no_thread_waits_with_it(url: str) -> None:
    """With more delayed requests than threads, the right token from the same address still works."""

    def guess(number: int) -> None:
        with suppress(requests.ConnectionError):  # the test ends before all are answered
            ask(url, str(number))

    guessing = [
        threading.Thread(target=guess, args=(number,), daemon=True)
        for number in range(2 * FREE_GUESSES + 2 * REQUEST_THREADS)
    ]
    for each in guessing:
        each.start()
    for _ in range(5):
        assert ask(url, TOKEN) == 200
    assert sum(each.is_alive() for each in guessing) > REQUEST_THREADS


@pytest.mark.parametrize("credential", ["none", "wrong"])
def test_a_stranger_cannot_leave_a_large_body(url: str, credential: str) -> None:
    """A client with the token or a login can."""
    headers = {} if credential == "none" else {"Authorization": "Bearer wrong"}
    pieces = (bytes(65536) for _ in range(100))
    answer = requests.post(f"{url}/comfyui/workflow/files", data=pieces, headers=headers, timeout=LIMIT_S)
    assert answer.status_code == 401
    right = {"Authorization": f"Bearer {TOKEN}"}
    files = {"file": ("a.bin", bytes(300_000))}
    answer = requests.post(f"{url}/comfyui/workflow/files", files=files, headers=right, timeout=LIMIT_S)
    assert answer.status_code == 200
    session = requests.Session()
    session.post(f"{url}/login", data={"token": TOKEN}, timeout=LIMIT_S)
    assert session.post(f"{url}/comfyui/workflow/files", files=files, timeout=LIMIT_S).status_code == 200


def test_a_stranger_hears_so_before_the_body(url: str) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    head = (
        b"POST /comfyui/workflow/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=LIMIT_S) as client:
        client.sendall(head)
        assert client.recv(65536).startswith(b"HTTP/1.1 401 ")
