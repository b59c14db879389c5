"""A ComfyUI that is out to harm whoever asks it: right in all but what it is told to do wrong.

with HostileComfyUI({"/history": bomb(6_000_000_000)}) as there:
    there.url, there.port

An attack gets the socket of a request that was read, and writes to it until it is hung up on. None keeps more
than a block in memory, however much it sends. `sent` counts what the peer took.
"""

import base64
import hashlib
import json
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Self

Write = Callable[[bytes], None]
Attack = Callable[[Write], None]

BLOCK_BYTES = 256 * 1024
_WEBSOCKET_SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def head(*lines: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", "Content-Type: application/json", *lines, "", ""]).encode()


def bomb(unpacked_bytes: int, status: str = "200 OK", *more: str) -> Attack:
    """Gzip of zeros: a thousandth of that on the wire."""

    def attack(write: Write) -> None:
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        write(head("Content-Encoding: gzip", "Connection: close", *more, status=status))
        for _ in range(unpacked_bytes // BLOCK_BYTES):
            write(packer.compress(bytes(BLOCK_BYTES)))
        write(packer.flush())

    return attack


def flood(total_bytes: int, *, is_announced: bool = False, value: bytes = b"[],") -> Attack:
    """JSON values without end."""

    def attack(write: Write) -> None:
        announced = (f"Content-Length: {total_bytes}",) if is_announced else ("Connection: close",)
        write(head(*announced) + b'{"a":[')
        block = value * (BLOCK_BYTES // len(value))
        for _ in range(total_bytes // len(block)):
            write(block)

    return attack


def chunks(total_bytes: int) -> Attack:
    def attack(write: Write) -> None:
        write(head("Transfer-Encoding: chunked"))
        for _ in range(total_bytes // BLOCK_BYTES):
            write(b"%x\r\n" % BLOCK_BYTES + b" " * BLOCK_BYTES + b"\r\n")

    return attack


def drip(begun: bytes = b"", drop: bytes = b" ", every_s: float = 0.02) -> Attack:
    """A byte now and then, for ever."""

    def attack(write: Write) -> None:
        write(begun or head("Content-Length: 1000000"))
        while True:
            time.sleep(every_s)
            write(drop)

    return attack


def drip_head(every_s: float = 0.02) -> Attack:
    return drip(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x", every_s)


def continue_for_ever(write: Write) -> None:
    while True:
        write(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.001)


def headers_for_ever(write: Write) -> None:
    write(b"HTTP/1.1 200 OK\r\n")
    while True:
        write(b"X-More: " + b"x" * 60_000 + b"\r\n")


def frame_head(length: int, opcode: int = 2, *, is_last: bool = True) -> bytes:
    return struct.pack("!BBQ", (0x80 if is_last else 0) | opcode, 127, length)


def huge_frame(length: int) -> Attack:
    def attack(write: Write) -> None:
        write(frame_head(length))
        for _ in range(length // BLOCK_BYTES):
            write(bytes(BLOCK_BYTES))

    return attack


def pieces_for_ever(piece_bytes: int = BLOCK_BYTES) -> Attack:
    """One message in frames of which none is the last."""

    def attack(write: Write) -> None:
        opcode = 1
        while True:
            write(frame_head(piece_bytes, opcode, is_last=False) + b" " * piece_bytes)
            opcode = 0

    return attack


def pings_for_ever(write: Write) -> None:
    while True:
        write(b"\x89\x00")
        time.sleep(0.001)


def message_of(content: bytes) -> Attack:
    def attack(write: Write) -> None:
        write(frame_head(len(content), 1) + content)
        threading.Event().wait(30)

    return attack


def many_messages(write: Write) -> None:
    """Sends as fast as the peer reads."""
    content = json.dumps({"type": "crystools.monitor", "data": {"values": list(range(200))}}).encode()
    block = (frame_head(len(content), 1) + content) * 100
    while True:
        write(block)


class HostileComfyUI:
    """`attacks`: by the path that a request begins with, or by method and path (`POST /prompt`); `/ws` after
    its handshake, `/ws!` in its place."""

    def __init__(self, attacks: Mapping[str, Attack] | None = None, *, ends_prompts: bool = True) -> None:
        """`ends_prompts`: they are gone at once; otherwise they run for ever."""
        self.attacks = dict(attacks or {})
        self._ends_prompts = ends_prompts
        self._running: list[object] = []
        self.asked: list[str] = []
        self.sent_bytes = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._open: set[socket.socket] = set()
        self._is_over = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over = True
        for one in (self._listener, *list(self._open)):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        self._open.add(connection)
        with connection, suppress(OSError):
            connection.settimeout(60)
            reader = connection.makefile("rb")
            while self._answer(connection, reader):
                pass
        self._open.discard(connection)

    def _answer(self, connection: socket.socket, reader: Any) -> bool:
        """Whether another request may follow."""
        method, path, headers, body = _read_request(reader)
        if not method:
            return False
        self.asked.append(f"{method} {path}")
        attack = self._attack(method, path)
        if "websocket" in headers.get("upgrade", ""):
            if "/ws!" in self.attacks:
                self.attacks["/ws!"](lambda data: self._write(connection, data))
                return False
            self._write(connection, _handshake(headers["sec-websocket-key"]))
            (attack or _stay_open)(lambda data: self._write(connection, data))
            return False
        if attack is not None:
            attack(lambda data: self._write(connection, data))
            return False
        content = b"" if method == "HEAD" else json.dumps(self._right_answer(method, path, body)).encode()
        self._write(connection, head(f"Content-Length: {len(content)}") + content)
        return True

    def _right_answer(self, method: str, path: str, body: bytes) -> object:
        path = path.partition("?")[0]
        if (method, path) == ("POST", "/prompt"):
            prompt_id = json.loads(body)["prompt_id"]
            if not self._ends_prompts:
                self._running.append([1, prompt_id, {}, {}, []])
            return {"prompt_id": prompt_id, "number": 1, "node_errors": {}}
        if path == "/upload/image":
            return {"name": "marker.txt", "subfolder": "", "type": "temp"}
        return {
            "/prompt": {"exec_info": {"queue_remaining": len(self._running)}},
            "/queue": {"queue_running": self._running, "queue_pending": []},
            "/object_info": OBJECT_INFO,
            "/system_stats": {"system": {"comfyui_version": "0.3.64", "argv": []}, "devices": []},
        }.get(path, {})

    def _attack(self, method: str, path: str) -> Attack | None:
        for key, attack in self.attacks.items():
            if f"{method} {path}".startswith(key) or path.startswith(key):
                return attack
        return None

    def _write(self, connection: socket.socket, data: bytes) -> None:
        if self._is_over:
            raise OSError("over")
        connection.sendall(data)
        self.sent_bytes += len(data)


def _stay_open(write: Write) -> None:
    write(b"\x81\x02{}")
    threading.Event().wait(60)


def _read_request(reader: Any) -> tuple[str, str, dict[str, str], bytes]:
    first = reader.readline().decode("latin-1").split()
    headers: dict[str, str] = {}
    while (line := reader.readline().decode("latin-1").strip()) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = reader.read(int(headers.get("content-length", 0)))
    return (first[0], first[1], headers, body) if len(first) > 1 else ("", "", headers, body)


OBJECT_INFO = {
    "EmptyImage": {
        "input": {"required": {name: ["INT", {}] for name in ("width", "height", "batch_size", "color")}},
        "output": ["IMAGE"],
        "output_node": False,
    },
    "ImageInvert": {
        "input": {"required": {"image": ["IMAGE"]}},
        "output": ["IMAGE"],
        "output_node": False,
    },
    "SaveImage": {
        "input": {"required": {"images": ["IMAGE"], "filename_prefix": ["STRING", {}]}},
        "output": [],
        "output_node": True,
    },
}


def _handshake(key: str) -> bytes:
    accept = base64.b64encode(hashlib.sha1(key.encode() + _WEBSOCKET_SALT).digest()).decode()
    lines = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}")
    return head(*lines, status="101 Switching Protocols")
