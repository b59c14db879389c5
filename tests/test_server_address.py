"""Tests of the server address: it is read without the settings, and equals that of the settings."""

import pytest

from comfyui_workflow.errors import ConfigurationError
from comfyui_workflow.server_address import PREFIX, server_address
from comfyui_workflow.settings import load_settings

TOKEN = "a-token-of-this-test"


@pytest.mark.parametrize(
    ("said", "url"),
    [
        ({}, "http://127.0.0.1:5000"),
        ({"PORT": "8080"}, "http://127.0.0.1:8080"),
        ({"PORT": ""}, "http://127.0.0.1:5000"),
        ({"HOST": "0.0.0.0"}, "http://127.0.0.1:5000"),
        ({"HOST": "::"}, "http://[::1]:5000"),
        ({"HOST": "localhost"}, "http://127.0.0.1:5000"),
        ({"HOST": "studio.example"}, "http://studio.example:5000"),
        ({"HOST": "studio.example", "SERVER_URL": "https://other.example/x"}, "https://other.example/x"),
    ],
)
def test_it_is_where_a_server_of_these_settings_is(
    said: dict[str, str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOST", "PORT", "SERVER_URL", "API_TOKEN"):
        monkeypatch.delenv(PREFIX + name, raising=False)
    for name, value in {**said, "API_TOKEN": TOKEN}.items():
        monkeypatch.setenv(PREFIX + name, value)
    address, settings = server_address(), load_settings()
    assert (address.url, address.is_named) == (url, settings.server_url is not None)
    assert settings.server_url in (None, url)
    assert url.endswith(f":{settings.port}") or address.is_named
    assert settings.api_token is not None
    assert address.api_token == settings.api_token.get_secret_value()
    assert TOKEN not in repr(address)


@pytest.mark.parametrize("port", ["80a", "-1", "65536", "5000.0"])
def test_what_is_no_port_is_told(port: str) -> None:
    with pytest.raises(ConfigurationError, match=r"COMFYUI_WORKFLOW_PORT.*0 to 65535"):
        server_address({f"{PREFIX}PORT": port})


def test_names_may_be_in_any_case() -> None:
    assert server_address({f"{PREFIX}PORT".lower(): "80"}).url == "http://127.0.0.1:80"
