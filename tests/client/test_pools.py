"""Connections to the server, direct or through the proxy of the environment."""

import base64
import ssl

import pytest
import urllib3

from comfyui_workflow.client.calls import Calls
from comfyui_workflow.client.pools import open_pools
from comfyui_workflow.errors import InvalidRequest
from tests.cli.canned_server import CannedServer

STUDIO = "http://studio.invalid:5000"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_server_elsewhere_is_asked_through_the_proxy(
    canned: CannedServer, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, canned.url.replace("//", "//me:s%40cret@"))
    assert Calls(STUDIO, None).ask("GET", "/health") == {}
    ((_, path, headers, _),) = canned.requests
    assert path == f"{STUDIO}/health"
    given = {name.lower(): value for name, value in headers.items()}["proxy-authorization"]
    assert base64.b64decode(given.removeprefix("Basic ")) == b"me:s@cret"


def test_the_environment_names_servers_without_a_proxy(
    canned: CannedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", canned.url)
    monkeypatch.setenv("NO_PROXY", "studio.invalid")
    assert not isinstance(open_pools(STUDIO, uses_proxy_settings=True), urllib3.ProxyManager)


def test_a_proxy_that_speaks_something_else_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(InvalidRequest, match=r"socks5://127\.0\.0\.1:1080"):
        Calls(STUDIO, None)


def test_a_server_on_this_machine_is_asked_straight(
    canned: CannedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert Calls(canned.url, None).ask("GET", "/health") == {}
    assert canned.requests[0][1] == "/health"


def test_certificates_are_checked() -> None:
    pools = open_pools("https://studio.invalid", uses_proxy_settings=False)
    context = pools.connection_pool_kw["ssl_context"]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.get_ca_certs()


def test_what_is_asked_is_said_as_http_says_it(canned: CannedServer) -> None:
    calls = Calls(canned.url, "a-token")
    calls.ask("GET", "/list", params={"name": "a lake & more"})
    calls.ask("POST", "/execute", json={"text": "Zürich"})
    calls.ask("POST", "/cancel")
    calls.ask("POST", "/files", file=("späť.png", b"\x89PNG"))
    (_, query, first, _), (_, _, second, body), (_, _, third, _), (_, _, _, multipart) = canned.requests
    assert query == "/list?name=a+lake+%26+more"
    assert (first["Authorization"], first["Accept-Encoding"]) == ("Bearer a-token", "identity")
    assert (second["Content-Type"], body) == ("application/json", b'{"text": "Z\\u00fcrich"}')
    assert third["Content-Length"] == "0"
    assert 'name="file"; filename="späť.png"'.encode() in multipart
    assert b"\r\n\r\n\x89PNG\r\n" in multipart


@pytest.mark.parametrize("value", [{"a": object()}, {"a": float("nan")}])
def test_what_no_json_can_hold_is_refused(canned: CannedServer, value: object) -> None:
    with pytest.raises(InvalidRequest, match="JSON"):
        Calls(canned.url, None).ask("POST", "/execute", json=value)
    assert not canned.requests
