"""Temporary server in the process of a command: starts when needed and leaves nothing behind."""

import socket
import threading
from typing import Any

import pytest
import requests

from comfyui_workflow.cli.own_server import own_server_settings, serve_in_this_process
from comfyui_workflow.errors import ConfigurationError, DataTaken
from comfyui_workflow.settings import load_settings


@pytest.mark.usefixtures("environment")
def test_it_ends_amid_requests_without_a_sound(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(10):
        with serve_in_this_process(load_settings(port=0)) as url:
            asking = threading.Thread(target=_ask_until_gone, args=(url,))
            asking.start()
            assert requests.get(f"{url}/health", timeout=5).ok
        asking.join(10)
    assert not caplog.records
    assert not [thread for thread in threading.enumerate() if thread.name == "http"]


@pytest.mark.usefixtures("environment")
def test_only_its_own_process_may_use_it() -> None:
    with serve_in_this_process(own_server_settings(load_settings())) as url:
        assert requests.get(f"{url}/comfyui/workflow", timeout=5).status_code == 401


@pytest.mark.usefixtures("environment")
def test_a_command_ends_when_another_server_may_work_on_its_data() -> None:
    settings = load_settings(port=0)
    with (
        pytest.raises(DataTaken, match="another server may have been started"),
        serve_in_this_process(own_server_settings(settings)),
    ):
        (settings.data_dir / "server.lock").unlink()
        for _ in range(400):  # an interrupt is noticed between two waits
            threading.Event().wait(0.05)


@pytest.mark.usefixtures("environment")
def test_a_name_with_two_addresses_is_served_at_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """On many machines `localhost` has an IPv6 and an IPv4 address."""
    resolve = socket.getaddrinfo

    def both(host: Any, *given: Any, **options: Any) -> list[Any]:
        names = ("::1", "127.0.0.1") if host == "localhost" else (host,)
        return [found for name in names for found in resolve(name, *given, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    with serve_in_this_process(load_settings(host="localhost", port=0)) as url:
        assert requests.get(f"{url.replace('localhost', '127.0.0.1')}/health", timeout=20).ok


@pytest.mark.usefixtures("environment")
def test_a_name_of_nobody_is_told() -> None:
    settings = load_settings(host="nowhere.invalid", port=0, api_token="a-token-of-this-test")
    with pytest.raises(ConfigurationError, match=r"Cannot listen on nowhere\.invalid"):
        serve_in_this_process(settings).__enter__()


def _ask_until_gone(url: str) -> None:
    try:
        with requests.Session() as session:
            while session.get(f"{url}/health", timeout=5).ok:
                pass
    except requests.RequestException:
        return
