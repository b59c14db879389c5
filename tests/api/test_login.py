"""Login of a browser: the cookie authorizes pages of this server only."""

import re
import time
from collections.abc import Callable

import pytest
from werkzeug.test import TestResponse

from comfyui_workflow.access.login_cookie import (
    COOKIE,
    LASTS_S,
    cookie_value,
    is_login,
    without_login,
)
from tests.api.conftest import Api

TOKEN = "s3cret-tökén"
STATE = "/comfyui/workflow/state"


@pytest.fixture
def api(make_api: Callable[..., Api]) -> Api:
    return make_api(api_token=TOKEN, cors_hosts="http://localhost:3000,http://127.0.0.1")


def log_in(api: Api, token: str = TOKEN, **headers: str) -> TestResponse:
    return api.client.post("/login", data={"token": token}, headers=headers)


def test_a_browser_logs_in_and_out(api: Api) -> None:
    assert api.client.get(STATE).status_code == 401
    form = api.client.get("/")
    assert (form.status_code, 'type="password"' in form.text) == (200, True)
    assert "form-action 'self'" in form.headers["Content-Security-Policy"]
    assert re.findall(r"<script[^>]*>", form.text) == ['<script type="module" src="/static/login.js">']
    answer = log_in(api)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    cookie = answer.headers["Set-Cookie"]
    for part in ("HttpOnly", "SameSite=Strict", "Path=/", f"Max-Age={LASTS_S}"):
        assert part in cookie.split("; ")
    assert "Secure" not in cookie
    assert "s3cret" not in cookie
    assert api.client.get(STATE).status_code == 200
    page = api.client.get("/").text
    assert ('type="password"' in page, "/logout" in page) == (False, True)
    answer = api.client.post("/logout")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert api.client.get(STATE).status_code == 401
    assert 'type="password"' in api.client.get("/").text


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x", "\0", "<script>", "a" * 400_000])
def test_a_wrong_token_is_asked_for_again(api: Api, token: str) -> None:
    answer = log_in(api, token)
    assert (answer.status_code, answer.mimetype) == (401, "text/html")
    assert "not the token" in answer.text
    assert "<script>" not in answer.text
    assert "Set-Cookie" not in answer.headers
    assert api.client.get(STATE).status_code == 401


def test_nothing_of_the_request_says_where_to_go_next(api: Api) -> None:
    for path in ("/login?next=https://evil.example", "/login?url=//evil.example"):
        answer = api.client.post(path, data={"token": TOKEN, "next": "//evil.example"})
        assert answer.headers["Location"] == "/"
    assert api.client.get("/login?token=x").headers["Location"] == "/"


def test_over_https_the_cookie_stays_there(api: Api) -> None:
    assert "Secure" in log_in(api, Origin="https://localhost").headers["Set-Cookie"]
    over_tls = api.client.post("/login", data={"token": TOKEN}, base_url="https://localhost")
    assert "Secure" in over_tls.headers["Set-Cookie"]


FOREIGN = [
    {"Origin": "http://localhost:3000"},
    {"Origin": "http://127.0.0.1"},
    {"Sec-Fetch-Site": "same-site", "Referer": "http://localhost:3000/page"},
    {
        "Sec-Fetch-Site": "same-site",
        "Referer": "http://127.0.0.1/",
        "Sec-Fetch-Mode": "no-cors",
        "Sec-Fetch-Dest": "image",
    },
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_page_of_another_port_has_nothing_of_the_login(api: Api, headers: dict[str, str]) -> None:
    """Such a page may use the API only with the token, since browsers send the cookies of the whole host."""
    assert log_in(api).status_code == 303
    cancel = "/comfyui/workflow/x/cancel"
    assert api.client.get(STATE, headers=headers).status_code == 401
    assert api.client.post(cancel, headers=headers).status_code == 401
    assert api.client.post("/logout", headers=headers).status_code == 403
    assert log_in(api, **headers).status_code == 403
    bearer = "Bearer " + TOKEN
    assert api.client.get(STATE, headers={**headers, "Authorization": bearer}).status_code == 200
    own = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert api.client.post(cancel, headers=own).status_code == 404


def test_who_follows_a_link_comes_in_at_the_second_try(api: Api) -> None:
    followed = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    first = api.client.get("/", headers={"Sec-Fetch-Site": "cross-site", **followed})
    assert first.headers["Refresh"] == "0; url=/"
    second = api.client.get("/", headers={"Sec-Fetch-Site": "same-origin", **followed})
    assert "Refresh" not in second.headers
    log_in(api)
    linked = api.client.get("/", headers={"Sec-Fetch-Site": "same-site", **followed})
    assert 'type="password"' not in linked.text


def test_a_login_ends_after_a_month_and_with_its_token() -> None:
    value = cookie_value("a", 1_000)
    assert is_login(value, "a", 1_000 + LASTS_S)
    assert not is_login(value, "a", 1_001 + LASTS_S)
    assert not is_login(value, "b", 1_000)
    for forged in (
        "",
        ".",
        value[:-1],
        value.replace("1000", "2000"),
        "1000",
        f"{10**9}.{value[5:]}",
        "\0.é",
    ):
        assert not is_login(forged, "a", 1_000), forged


@pytest.mark.parametrize("value", ["x", "1.2", "." * 5000, "\xff", '"'])
def test_a_cookie_that_is_none_is_no_login(api: Api, value: str) -> None:
    headers = {"Cookie": f"{COOKIE}={value}"}
    assert api.app.test_client(use_cookies=False).get(STATE, headers=headers).status_code == 401


def test_a_cookie_that_another_server_of_the_host_left_does_no_harm(api: Api) -> None:
    good = cookie_value(TOKEN, int(time.time()))
    headers = {"Cookie": f"{COOKIE}=planted; other=1; {COOKIE}={good}"}
    assert api.app.test_client(use_cookies=False).get(STATE, headers=headers).status_code == 200


def test_without_a_token_there_is_nothing_to_log_in_to(make_api: Callable[..., Api]) -> None:
    api = make_api()
    assert 'type="password"' not in api.client.get("/").text
    assert "/logout" not in api.client.get("/").text
    answer = log_in(api, "anything")
    assert (answer.status_code, "Set-Cookie" in answer.headers) == (303, False)


def test_what_the_login_page_needs_is_open_and_nothing_else(api: Api) -> None:
    page = api.client.get("/").text
    for name in ("style.css", "icon.svg"):
        assert f"/static/{name}" in page
        assert api.client.get(f"/static/{name}").status_code == 200
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/"):
        assert api.client.get(path).status_code in (401, 404), path
    assert api.client.get("/comfyui/instances").status_code == 401
    assert api.client.get("/login/x").status_code == 401


@pytest.mark.parametrize(
    ("cookies", "left"),
    [
        (f"{COOKIE}=1.2", ""),
        (f"a=1; {COOKIE}=1.2; b=2", "a=1; b=2"),
        (f"a=1;{COOKIE} =1;{COOKIE}=2", "a=1"),
        (f"a={COOKIE}", f"a={COOKIE}"),
        (f"{COOKIE}", ""),
        ("", ""),
    ],
)
def test_other_servers_of_the_host_are_not_told_of_the_login(cookies: str, left: str) -> None:
    assert without_login(cookies) == left
