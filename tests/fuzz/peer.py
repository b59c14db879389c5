"""A peer that says whatever it was told to, as bytes."""

import contextlib
import socket
import threading


class Peer:
    """Answers every request with the bytes that were laid out for its path, and closes the connection."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.fallback = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.split(b" ")[0].split(b"?")[0]
        return self.answers.get(f"{method.decode()} {path.decode()}", self.fallback)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(2)
                connection.sendall(self.answer(_read_head(connection)))
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass


def _read_head(connection: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head and (piece := connection.recv(65536)):
        head += piece
    return head
