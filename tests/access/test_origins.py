"""Tests of page origins in different spellings."""

import pytest

from comfyui_workflow.access.origins import (
    is_at_local_port,
    is_loopback_name,
    origin_of_url,
    parse_origin,
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("http://localhost", "http://localhost"),
        ("HTTP://LocalHost:80", "http://localhost"),
        ("https://a.example:443", "https://a.example"),
        ("http://[::1]:8188", "http://[::1]:8188"),
        *(
            (text, None)
            for text in ("null", "", "http://", "file:///x", "http://a/", "http://u@a", "http://a b")
        ),
        *((text, None) for text in ("http://[", "http://a:0", "http://a:99999", "http://a:x", "http://a\\b")),
    ],
)
def test_an_origin_has_one_spelling(text: str, told: str | None) -> None:
    origin = parse_origin(text)
    assert (None if origin is None else str(origin)) == told


def test_the_origin_of_an_address() -> None:
    assert (
        str(origin_of_url("http://127.0.0.1:8188/scripts/app.js?x=http://localhost"))
        == "http://127.0.0.1:8188"
    )
    assert origin_of_url("about:blank") is None


LOCAL = ["localhost", "LOCALHOST", "localhost.", "a.localhost", "127.0.0.1", "127.3.2.1", "[::1]", "127.1",
         "2130706433", "0x7f.1", "0.0.0.0",
         "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "[::]"]  # fmt: skip


@pytest.mark.parametrize("host", LOCAL)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_local_port_is_one_however_the_machine_is_called(scheme: str, host: str) -> None:
    origin = parse_origin(f"{scheme}://{host}:8188")
    assert origin is not None
    assert is_at_local_port(origin, {8188})
    assert not is_at_local_port(origin, {8189})


@pytest.mark.parametrize(
    "host", ["localhost.evil.example", "10.0.0.1", "::2", "1.0.0.127", "fade", "", "128.0.0.1"]
)
def test_another_machine_is_none(host: str) -> None:
    assert not is_loopback_name(host)
