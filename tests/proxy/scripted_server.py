"""An HTTP server that answers with bytes that a test sets, and records the bytes that it receives."""

import socket
import threading
from contextlib import suppress
from typing import Self

PROBE = b"GET /prompt HTTP/1.1"
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class ScriptedServer:
    """Answers every request with `answer` and closes the connection; None closes without an answer. Pings
    (`GET /prompt`) are answered, too, but not recorded."""

    def __init__(self, answer: bytes | None = GOOD) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(10)
            request = _read_request(connection)
            if request.startswith(PROBE):
                connection.sendall(GOOD)
                return
            self.requests.append(request)
            if self.answer is not None:
                connection.sendall(self.answer)


def _read_request(connection: socket.socket) -> bytes:
    """Reads the head, and the body if its length is given."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            missing = int(line.partition(b":")[2]) - len(body)
            while missing > 0:
                piece = connection.recv(missing)
                missing -= len(piece)
                data += piece
    return data
