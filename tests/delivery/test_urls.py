"""Tests of URLs: parsing, allowed addresses, and which parts are shown."""

import ipaddress

import pytest

from comfyui_workflow.errors import UrlRefused
from comfyui_workflow.safe_http.addresses import is_public, known_addresses
from comfyui_workflow.safe_http.urls import origin_of, read_url, shown_url

SECRET = "https://me:pa%40ss@hooks.example.com:8443/services/T0/B1?token=abc#end"


def test_a_url_is_read() -> None:
    target = read_url(SECRET)
    assert (target.is_encrypted, target.host, target.port) == (True, "hooks.example.com", 8443)
    assert target.path == "/services/T0/B1?token=abc"
    assert target.authorization == "Basic bWU6cGFAc3M="
    assert read_url("http://[2001:db8::1]/").host == "2001:db8::1"
    assert read_url("HTTPS://bücher.example/ä").path == "/%C3%A4"
    assert read_url("HTTPS://bücher.example/ä").host == "xn--bcher-kva.example"


def test_its_secrets_are_not_shown() -> None:
    assert shown_url(SECRET) == "https://hooks.example.com:8443/services/T0/B1?…"
    assert origin_of(SECRET) == "https://hooks.example.com:8443"
    assert shown_url("nonsense with secret") == origin_of("nonsense with secret") == "an invalid URL"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/hook",
        "//example.com/hook",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "http://",
        "http:///path",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://example.com:port/",
        "http://exa mple.com/",
        "http://example.com/\r\nX-Evil: 1",
        "http://example.com/\x00",
        "http://[::1/",
        "http://[fe80::1%25eth0]/",
        f"http://{'a' * 300}\u3002example/",
        "http://example.com/" + "a" * 8192,
        "http://\ud800.example/",
    ],
)
def test_what_is_no_url_is_refused_without_its_text(url: str) -> None:
    with pytest.raises(UrlRefused) as caught:
        read_url(url)
    assert "passwd" not in str(caught.value)
    assert "Evil" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "168.63.129.16",
        "100.64.0.1",
        "100.100.100.200",
        "192.0.0.192",
        "198.18.0.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "2001:db8::1",
        "fe80::1",
        "fe80::1%1",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
    ],
)
def test_no_address_of_ours_is_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_addresses_of_everybody_are(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "::1"])
def test_an_address_is_known_in_every_spelling(host: str) -> None:
    assert [each.ip.is_loopback for each in known_addresses(host)] == [True]
    assert not known_addresses("localhost.example")
    assert not known_addresses("notlocalhost")
