"""Tests with idle, slow and too many connections: other clients and honest slow clients are still served."""

import resource
import socket
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import requests

from comfyui_workflow.access.connection_limits import ConnectionLimits, Credit
from comfyui_workflow.server.http import REQUEST_THREADS
from tests.server.conftest import GET, LIMIT_S, Serve, answer_of, is_closed, until
from tests.server_process import ServerProcess

HEAD = b"GET /hello HTTP/1.1\r\nHost: localhost\r\nX-Long: "
NEVER_S = 3600.0


def drip(client: socket.socket, piece: bytes, every_s: float) -> float:
    """Returns the seconds until the server closes the connection."""
    began_s = time.monotonic()
    client.settimeout(every_s)
    while time.monotonic() - began_s < LIMIT_S:
        try:
            client.send(piece)
            if not client.recv(65536):
                break
        except TimeoutError:
            continue
        except OSError:
            break
    return time.monotonic() - began_s


def test_many_idle_connections_keep_nobody_out(serve: Serve) -> None:
    running = serve()
    with ExitStack() as opened:
        for _ in range(300):
            opened.enter_context(running.connect())
        for _ in range(3):
            assert running.ask().endswith(b"hello ")


def test_headers_that_come_byte_by_byte_are_cut_at_the_deadline(serve: Serve) -> None:
    running = serve(ConnectionLimits(head_s=1.0))
    with running.connect() as client:
        client.sendall(HEAD)
        assert 0.5 < drip(client, b"x", 0.1) < LIMIT_S / 2


def test_it_is_told_that_the_headers_were_too_slow(serve: Serve) -> None:
    running = serve(ConnectionLimits(head_s=0.5))
    with running.connect() as client:
        client.sendall(HEAD)
        answer = answer_of(client)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert answer.endswith(b"Please send again.")
        assert is_closed(client)


def test_a_connection_that_says_nothing_is_closed(serve: Serve) -> None:
    running = serve(ConnectionLimits(head_s=0.5))
    with running.connect() as client:
        assert client.recv(1) == b""


def test_a_page_that_polls_keeps_its_connection_and_an_idle_one_does_not(serve: Serve) -> None:
    running = serve(ConnectionLimits(head_s=0.5, idle_s=3.0))
    with running.connect() as polling, running.connect() as idle:
        idle.sendall(GET)
        assert answer_of(idle).startswith(b"HTTP/1.1 200 ")
        idle.settimeout(0.5)
        while True:
            polling.sendall(GET)
            assert answer_of(polling).startswith(b"HTTP/1.1 200 ")
            with suppress(TimeoutError):
                assert idle.recv(1) == b""
                break
        polling.sendall(GET)
        assert answer_of(polling).startswith(b"HTTP/1.1 200 ")


def post(length: int) -> bytes:
    return f"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode()


def test_a_slow_upload_that_goes_on_is_taken(serve: Serve) -> None:
    running = serve(ConnectionLimits(body=Credit(seconds=2.0, bytes_per_s=500.0)))
    with running.connect() as client:
        client.sendall(post(40 * 1000))
        for _ in range(40):
            client.sendall(bytes(1000))
            time.sleep(0.1)
        assert answer_of(client).endswith(b"\r\n\r\n40000")


def test_an_upload_slower_than_that_is_cut(serve: Serve) -> None:
    running = serve(ConnectionLimits(body=Credit(seconds=1.0, bytes_per_s=500.0)))
    with running.connect() as client:
        client.sendall(post(40 * 1000))
        assert drip(client, b"x", 0.1) < LIMIT_S / 2


def test_clients_that_do_not_read_hold_no_threads(serve: Serve) -> None:
    running = serve(ConnectionLimits(sending=Credit(seconds=1.0, bytes_per_s=500.0)))
    with ExitStack() as opened:
        for _ in range(REQUEST_THREADS):
            client = opened.enter_context(running.connect(receive_bytes=4096))
            client.sendall(GET.replace(b"/hello", b"/large"))
        for _ in range(REQUEST_THREADS):
            assert running.server.begun.acquire(timeout=LIMIT_S)
        assert running.ask().endswith(b"hello ")


def test_a_slow_reader_that_goes_on_hears_all_of_it(serve: Serve) -> None:
    running = serve(ConnectionLimits(sending=Credit(seconds=2.0, bytes_per_s=500.0)))
    with running.connect(receive_bytes=65536) as client:
        client.sendall(GET.replace(b"/hello", b"/large").replace(b"1.1", b"1.0"))
        heard, began_s = 0, time.monotonic()
        while piece := client.recv(1 << 20):
            heard += len(piece)
            if time.monotonic() - began_s < 4.0:
                time.sleep(0.05)
        assert heard > 1600 * 64 * 1024


def test_requests_sent_ahead_wait_until_the_client_has_read(serve: Serve) -> None:
    count = 2_000
    running = serve()
    with running.connect() as client:
        requests_ahead = b"".join(GET.replace(b"/hello", f"/hello?n={n}".encode()) for n in range(count))
        sending = threading.Thread(target=_send_all, args=(client, requests_ahead), daemon=True)
        sending.start()
        for n in (0, 1, 2):
            assert running.ask(GET.replace(b"/hello", b"/hello?n=other")).endswith(b"hello other"), n
        heard = b""
        while f"hello {count - 1}".encode() not in heard[-100:]:
            piece = client.recv(1 << 20)
            assert piece
            heard += piece
        sending.join(LIMIT_S)
    answers = heard.split(b"HTTP/1.1 200 OK")[1:]
    assert [answer.rpartition(b" ")[2] for answer in answers] == [str(n).encode() for n in range(count)]


def _send_all(client: socket.socket, sent: bytes) -> None:
    with suppress(OSError):
        client.sendall(sent)


def test_large_answers_to_requests_sent_ahead_hold_no_threads(serve: Serve) -> None:
    running = serve()
    with ExitStack() as opened:
        for _ in range(REQUEST_THREADS):
            client = opened.enter_context(running.connect(receive_bytes=4096))
            client.sendall(GET.replace(b"/hello", b"/whole") * 3)
        for _ in range(REQUEST_THREADS):
            assert running.server.begun.acquire(timeout=LIMIT_S)
        assert running.ask().endswith(b"hello ")


def test_the_oldest_idle_connection_makes_room_and_one_that_works_does_not(serve: Serve) -> None:
    running = serve(ConnectionLimits(most=10, head_s=NEVER_S))
    with ExitStack() as opened:
        working = opened.enter_context(running.connect())
        working.sendall(GET.replace(b"/hello", b"/long"))
        assert running.server.begun.acquire(timeout=LIMIT_S)
        idle = [opened.enter_context(running.connect()) for _ in range(12)]
        assert is_closed(idle[0])
        for _ in range(12):
            assert running.ask().endswith(b"hello ")
        running.server.may_end.set()
        assert answer_of(working).endswith(b"at last")


def test_the_server_serves_on_when_it_has_no_more_files(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        in_use = len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
        most = in_use + 20
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (most, most))
        port = int(server.url.split(":")[2].partition("/")[0])
        with ExitStack() as opened:
            for _ in range(40):
                opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S))
            assert server.get("")["success"]
            assert server.get("")["success"]
            for _ in range(2):
                assert server.get("")["success"]


@pytest.mark.parametrize("count", [300])
def test_it_comes_to_rest_with_many_connections_open(tmp_path: Path, count: int) -> None:
    with ServerProcess(tmp_path) as server, ExitStack() as opened:
        port = int(server.url.split(":")[2].partition("/")[0])
        for _ in range(count):
            opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S))
        assert requests.get(server.url, timeout=LIMIT_S).ok
        assert server.terminate() == 0


def test_no_closed_connection_is_counted(serve: Serve) -> None:
    running = serve()
    for _ in range(5):
        running.ask()
    until(lambda: not running.http._http._by_address)
