"""Clients that belong to another user of this machine; only root can start them."""

import json
import os
import subprocess
import sys

import pytest

NOBODY = 65534
LIMIT_S = 30
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell")
as_root = pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="only root becomes others")
ASK = """
import json, os, socket, sys
uid, address, port, request, waits = json.loads(sys.argv[1])
if uid:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
family = socket.AF_INET6 if ":" in address else socket.AF_INET
with socket.socket(family) as client:
    client.settimeout(30)
    client.connect((address, port))
    client.sendall(request.encode())
    while waits and (piece := client.recv(65536)):
        sys.stdout.write(piece.decode("latin-1"))
    if not waits:
        print("sent", flush=True)
        sys.stdin.read()
"""


def start_as(uid: int, address: str, port: int, request: str, *, waits: bool) -> "subprocess.Popen[str]":
    """A client that belongs to that user. One that does not wait for an answer ends when its input does."""
    return subprocess.Popen(
        [sys.executable, "-S", "-c", ASK, json.dumps([uid, address, port, request, waits])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask_as(uid: int, port: int, path: str, *headers: str, body: str = "", address: str = "127.0.0.1") -> str:
    """The whole answer."""
    method = "POST" if body else "GET"
    head = [f"{method} {path} HTTP/1.1", f"Host: localhost:{port}", "Connection: close", *headers]
    head += [f"Content-Length: {len(body)}", "Content-Type: application/json"] if body else []
    client = start_as(uid, address, port, "\r\n".join([*head, "", body]), waits=True)
    return client.communicate(timeout=LIMIT_S)[0]
