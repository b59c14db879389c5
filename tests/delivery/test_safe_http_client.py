"""Tests of the HTTP client for URLs of clients: it connects only to allowed addresses."""

import gzip
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from comfyui_workflow.errors import UrlRefused, WebError, WebUnavailable
from comfyui_workflow.safe_http.client import GuardedClient
from tests.delivery.receiver import (
    ELSEWHERE,
    LOOPBACK,
    Answer,
    Names,
    Receiver,
    only_loopback,
    receiving,
)

ANYWHERE = GuardedClient(may_reach_private=True)
PUBLIC = GuardedClient(may_reach_private=False)


def guarded(names: Names) -> GuardedClient:
    """A client that treats 127.0.0.1 as a public address."""
    return GuardedClient(may_reach_private=False, resolve=names, is_public=only_loopback)


def test_content_arrives(receiver: Receiver) -> None:
    headers = {"Content-Type": "application/json", "Webhook-Id": "webhook_1_a"}
    url = receiver.url("/hook?token=abc").replace("//", "//me:pa%40ss@")
    assert ANYWHERE.post(url, b'{"a": 1}', headers, 10) == 200
    [heard] = receiver.heard
    assert (heard.method, heard.path, heard.content) == ("POST", "/hook?token=abc", b'{"a": 1}')
    assert heard.headers["Host"] == f"127.0.0.1:{receiver.port}"
    assert heard.headers["Authorization"] == "Basic bWU6cGFAc3M="
    assert heard.headers["Webhook-Id"] == "webhook_1_a"
    assert heard.headers["User-Agent"].startswith("comfyui-workflow/")


@pytest.mark.parametrize("status", [201, 303, 400, 404, 410, 500])
def test_every_other_status_is_told(receiver: Receiver, status: int) -> None:
    receiver.answers = [Answer(status=status, headers={"Location": "/elsewhere"})]
    assert ANYWHERE.post(receiver.url(), b"{}", {}, 10) == status
    assert len(receiver.heard) == 1


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "a.localhost",
        "localhost.",
        "127.1",
        "0x7f000001",
        "[::1]",
        "[::ffff:127.0.0.1]",
    ],
)
def test_this_machine_is_refused_before_anybody_is_asked(receiver: Receiver, host: str) -> None:
    url = receiver.url(host=host)
    with pytest.raises(UrlRefused, match=r"not public.*COMFYUI_WORKFLOW_PRIVATE_URLS"):
        PUBLIC.check(url)
    with pytest.raises(UrlRefused):
        PUBLIC.post(url, b"{}", {}, 10)
    with pytest.raises(UrlRefused):
        PUBLIC.fetch(url, 100, 10)
    assert receiver.heard == []
    ANYWHERE.check(url)


def test_a_name_of_somebody_else_is_not_asked_for_while_it_is_checked() -> None:
    names = Names(evil_example=[[ELSEWHERE]])
    guarded(names).check("https://evil.example/hook")
    assert names.asked == []


def test_a_name_that_leads_to_a_private_address_is_refused(receiver: Receiver) -> None:
    with pytest.raises(UrlRefused, match=r"evil\.example has"):
        guarded(Names(evil_example=[[ELSEWHERE]])).post(receiver.url(host="evil.example"), b"{}", {}, 10)


@pytest.mark.parametrize("addresses", [[LOOPBACK, ELSEWHERE], [ELSEWHERE, LOOPBACK], [LOOPBACK, "::1"]])
def test_one_private_address_among_public_ones_spoils_all(receiver: Receiver, addresses: list[str]) -> None:
    client = guarded(Names(evil_example=[addresses]))
    with pytest.raises(UrlRefused):
        client.post(receiver.url(host="evil.example"), b"{}", {}, 10)
    assert receiver.heard == []


def test_the_connection_goes_to_the_address_that_was_checked(receiver: Receiver) -> None:
    """A name is resolved once, even if its address changes (DNS rebinding). `Host` is the host of the URL."""
    names = Names(evil_example=[[LOOPBACK], [ELSEWHERE]])
    assert guarded(names).post(receiver.url(host="evil.example"), b"{}", {}, 10) == 200
    assert names.asked == ["evil.example"]
    assert receiver.heard[0].headers["Host"] == f"evil.example:{receiver.port}"


def test_the_system_is_not_asked_for_the_name_again(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = socket.getaddrinfo

    def numbers_only(host: str, port: int, **options: int) -> list[tuple[object, ...]]:
        assert options.get("flags") == socket.AI_NUMERICHOST
        return look_up(host, port, **options)

    client = guarded(Names(evil_example=[[LOOPBACK]]))
    monkeypatch.setattr(socket, "getaddrinfo", numbers_only)
    assert client.post(receiver.url(host="evil.example"), b"{}", {}, 10) == 200


def test_a_proxy_of_the_environment_is_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.2:9")
    assert ANYWHERE.post(receiver.url(), b"{}", {}, 10) == 200


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_keeps_method_and_content(receiver: Receiver, status: int) -> None:
    receiver.answers = [Answer(status=status, headers={"Location": "/there?b=2"}), Answer()]
    assert ANYWHERE.post(receiver.url().replace("//", "//me:pass@"), b'{"a": 1}', {}, 10) == 200
    assert [(each.method, each.path, each.content) for each in receiver.heard] == [
        ("POST", "/hook", b'{"a": 1}'),
        ("POST", "/there?b=2", b'{"a": 1}'),
    ]
    assert "Authorization" in receiver.heard[1].headers


def test_a_password_is_not_handed_on_to_another_server(receiver: Receiver) -> None:
    with receiving() as other:
        receiver.answers = [Answer(status=307, headers={"Location": other.url()})]
        assert ANYWHERE.post(receiver.url().replace("//", "//me:pass@"), b"{}", {}, 10) == 200
        assert "Authorization" not in other.heard[0].headers


@pytest.mark.parametrize("host", [ELSEWHERE, "private.example", "[::1]", "2130706434"])
def test_a_redirect_to_a_private_address_is_refused(receiver: Receiver, host: str) -> None:
    receiver.answers = [Answer(status=307, headers={"Location": receiver.url(host=host)})]
    names = Names(good_example=[[LOOPBACK]], private_example=[[ELSEWHERE]])
    names._answers |= {"::1": [["::1"]], "2130706434": [[ELSEWHERE]]}
    with pytest.raises(UrlRefused):
        guarded(names).post(receiver.url(host="good.example"), b"{}", {}, 10)
    assert len(receiver.heard) == 1


def test_a_redirect_to_a_name_that_has_changed_meanwhile_is_refused(receiver: Receiver) -> None:
    receiver.answers = [Answer(status=302, headers={"Location": "/again"})]
    client = guarded(Names(evil_example=[[LOOPBACK], [ELSEWHERE]]))
    with pytest.raises(UrlRefused):
        client.fetch(receiver.url(host="evil.example"), 100, 10)
    assert len(receiver.heard) == 1


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://example.com/", "http://[::1"])
def test_a_redirect_to_something_else_is_refused(receiver: Receiver, location: str) -> None:
    receiver.answers = [Answer(status=302, headers={"Location": location})]
    with pytest.raises(UrlRefused):
        ANYWHERE.fetch(receiver.url(), 100, 10)


def test_redirects_end(receiver: Receiver) -> None:
    receiver.answers = [Answer(status=302, headers={"Location": "/hook"})]
    with pytest.raises(WebError, match="more than 5 times"):
        ANYWHERE.post(receiver.url(), b"{}", {}, 10)
    assert len(receiver.heard) == 6


def test_an_exchange_is_one_request_and_whatever_is_answered(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answers = [Answer(status=307, headers={"Location": "/there", "ETag": "a"}, pieces=[b"moved"])]
    (tmp_path / "film").write_bytes(b"film" * 100_000)
    with (tmp_path / "film").open("rb") as film:
        headers = {"Content-Length": "400000", "Authorization": "AWS4 signed"}
        answer = ANYWHERE.exchange("PUT", receiver.url("/a/b?partNumber=1"), film, headers)
    assert (answer.status, answer.headers["ETag"], answer.content) == (307, "a", b"moved")
    assert ANYWHERE.exchange("HEAD", receiver.url(), None, {}).content == b""
    put, head = receiver.heard
    assert (put.method, put.path, put.content) == ("PUT", "/a/b?partNumber=1", b"film" * 100_000)
    assert put.headers["Authorization"] == "AWS4 signed"
    assert head.method == "HEAD"


def test_an_exchange_goes_to_the_address_that_was_checked(receiver: Receiver) -> None:
    names = Names(evil_example=[[LOOPBACK], [ELSEWHERE]])
    url = receiver.url(host="evil.example")
    assert guarded(names).exchange("PUT", url, b"picture", {}).status == 200
    assert names.asked == ["evil.example"]
    with pytest.raises(UrlRefused):
        guarded(names).exchange("PUT", url, b"picture", {})
    assert len(receiver.heard) == 1


def test_a_file_is_fetched_whole(receiver: Receiver) -> None:
    pieces = [b"x" * 100_000, b"y"]
    receiver.answers = [Answer(headers={"Content-Type": "image/png"}, pieces=pieces)]
    fetched = ANYWHERE.fetch(receiver.url("/a.png"), 100_001, 10)
    assert (fetched.content, fetched.content_type) == (b"".join(pieces), "image/png")


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_is_not_read_further_than_wanted(receiver: Receiver, packed: bool) -> None:
    content = gzip.compress(bytes(10_000_000)) if packed else bytes(10_000_000)
    headers = {"Content-Encoding": "gzip"} if packed else {}
    receiver.answers = [Answer(headers=headers, pieces=[content])]
    with pytest.raises(WebError, match="more than 1000 bytes") as caught:
        ANYWHERE.fetch(receiver.url(), 1000, 10)
    assert not caught.value.is_transient


@pytest.mark.parametrize(("status", "is_transient"), [(404, False), (204, False), (503, True), (429, True)])
def test_a_file_that_is_not_there(receiver: Receiver, status: int, is_transient: bool) -> None:
    receiver.answers = [Answer(status=status)]
    with pytest.raises(WebError, match=f"status {status}") as caught:
        ANYWHERE.fetch(receiver.url("/a?token=abc"), 1000, 10)
    assert caught.value.is_transient is is_transient
    assert "token" not in str(caught.value)


def test_a_file_that_is_cut_short_is_none(receiver: Receiver) -> None:
    receiver.answers = [Answer(headers={"Content-Length": "100"}, pieces=[b"x"])]
    with pytest.raises(WebUnavailable):
        ANYWHERE.fetch(receiver.url(), 1000, 10)


def test_nobody_listens() -> None:
    with socket.socket() as reserved:
        reserved.bind((LOOPBACK, 0))
        with pytest.raises(WebUnavailable, match="refuses connections"):
            ANYWHERE.post(f"http://127.0.0.1:{reserved.getsockname()[1]}/", b"{}", {}, 10)


def test_the_next_address_is_asked_where_one_refuses(receiver: Receiver) -> None:
    client = GuardedClient(may_reach_private=True, resolve=Names(two_example=[[ELSEWHERE, LOOPBACK]]))
    assert client.post(receiver.url(host="two.example"), b"{}", {}, 10) == 200


def test_a_name_that_nobody_knows() -> None:
    def unknown(host: str, port: int) -> list[object]:
        raise socket.gaierror(-2, "Name or service not known")

    client = GuardedClient(may_reach_private=False, resolve=unknown)
    with pytest.raises(WebUnavailable, match=r"nobody\.example cannot be resolved"):
        client.post("https://nobody.example/", b"{}", {}, 10)


def test_something_that_is_no_web_server() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        thread = threading.Thread(target=_say, args=(server, b"SSH-2.0-OpenSSH_9.6\r\n"))
        thread.start()
        with pytest.raises(WebUnavailable, match="does not send a valid HTTP response"):
            ANYWHERE.post(f"http://127.0.0.1:{server.getsockname()[1]}/", b"{}", {}, 10)
        thread.join()


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nX-Slow: "])
def test_a_server_that_says_nothing_more_is_left(said: bytes) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        began_s = time.monotonic()
        released = threading.Event()
        thread = threading.Thread(target=_drip, args=(server, said, released))
        thread.start()
        with pytest.raises(WebUnavailable, match="took too long"):
            ANYWHERE.post(f"http://127.0.0.1:{server.getsockname()[1]}/", b"{}", {}, 0.3)
        assert time.monotonic() - began_s < 20
        released.set()
        thread.join()


def test_a_file_that_comes_byte_by_byte_is_left(receiver: Receiver) -> None:
    released = threading.Event()
    receiver.answers = [Answer(pieces=_bytes_until(released))]
    with pytest.raises(WebUnavailable, match="took too long"):
        ANYWHERE.fetch(receiver.url(), 10**9, 0.3)
    released.set()


class TestTls:
    def test_the_certificate_is_that_of_the_name(self, tmp_path: Path) -> None:
        server_side, client_side = certificates("good.example", tmp_path)
        with receiving(server_side) as receiver:
            client = _tls_client(client_side)
            assert client.post(receiver.url(host="good.example"), b"{}", {}, 10) == 200
            assert receiver.heard[0].headers["Host"] == f"good.example:{receiver.port}"
            with pytest.raises(WebUnavailable, match="TLS"):
                client.post(receiver.url(host="evil.example"), b"{}", {}, 10)
            with pytest.raises(WebUnavailable, match="TLS"):
                ANYWHERE.post(receiver.url(), b"{}", {}, 10)
            assert len(receiver.heard) == 1

    def test_a_way_that_is_encrypted_stays_so(self, tmp_path: Path, receiver: Receiver) -> None:
        server_side, client_side = certificates("good.example", tmp_path)
        with receiving(server_side) as encrypted:
            encrypted.answers = [Answer(status=307, headers={"Location": receiver.url()})]
            with pytest.raises(UrlRefused, match="not encrypted"):
                _tls_client(client_side).post(encrypted.url(host="good.example"), b"{}", {}, 10)
        assert receiver.heard == []


def _tls_client(context: ssl.SSLContext) -> GuardedClient:
    names = Names(good_example=[[LOOPBACK]], evil_example=[[LOOPBACK]])
    return GuardedClient(may_reach_private=False, resolve=names, is_public=only_loopback, tls=context)


def certificates(name: str, directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Returns TLS contexts: for a server of that name, and for a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    at = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(at - timedelta(days=1))
        .not_valid_after(at + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    unencrypted = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = directory / "server.pem"
    path.write_bytes(pem + unencrypted)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(path)
    return server_side, ssl.create_default_context(cadata=pem.decode())


def _say(server: socket.socket, said: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1000):
            pass


def _drip(server: socket.socket, said: bytes, released: threading.Event) -> None:
    """Sends a byte now and then, or nothing: no single read exceeds its timeout."""
    connection, _ = server.accept()
    with connection:
        connection.sendall(said)
        try:
            while not released.wait(0.02):
                if said:
                    connection.sendall(b"x")
        except OSError:
            return


def _bytes_until(released: threading.Event) -> Iterator[bytes]:
    while not released.wait(0.02):
        yield b"x"
