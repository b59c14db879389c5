"""Runs a Python program on the instance, over the open connection: nothing is installed or stored there.

run_program(transport, source, request, ...) -> iterator of the JSON objects that the program prints

How it works. The command that the SSH server gets is constant, so nothing is composed into a shell, and a
list of processes shows nothing but it. It starts the first Python that it finds, which reads the program and
its request (a JSON object, secrets included) from the standard input. The input stays open as long as this
server wants the program to run: its end tells the program to stop, also after the connection was cut.
"""

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import paramiko

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ConnectionFailed, ProgramFailed
from comfyui_workflow.parsing.untrusted import as_object, read_json, spoken

log = logging.getLogger(__name__)

MARK = "comfyui-workflow"
"""Key of the objects that the program prints. Other lines are what the shell or a library prints."""
_LOADER = "import sys; exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
_TEST = "import sys; sys.exit(sys.version_info < (3, 7))"
_FINDS_PYTHON = (
    f'go() {{ "$1" -c "{_TEST}" </dev/null 2>/dev/null && exec "$1" -u -c "{_LOADER}"; }}; '
    "for p in python3 python /opt/conda/bin/python3 /opt/venv/bin/python3 /venv/main/bin/python3; do "
    'command -v "$p" >/dev/null 2>&1 && go "$p"; done; '
    'for e in /proc/[0-9]*/exe; do p=$(readlink "$e" 2>/dev/null); '
    'case "$p" in */python*) go "$p";; esac; done; exit 127'
)
COMMAND = f"exec sh -c '{_FINDS_PYTHON}'"
"""ComfyUI is a Python program, so there is a Python: on the path, at a usual place, or that of a process."""
NO_PYTHON = 127
LONGEST_LINE_BYTES = 256 * 1024
_KEPT_TEXT_BYTES = 4096
_PIECE_BYTES = 32 * 1024
_WAKE_UP_S = 0.5


def run_program(
    transport: paramiko.Transport,
    label: str,
    source: bytes,
    request: Mapping[str, Any],
    *,
    stop: CancelToken,
    open_timeout_s: float,
    silence_timeout_s: float,
) -> Iterator[Mapping[str, Any]]:
    """Yields each object as soon as it is printed. The program ends when the iterator is closed, and when
    `stop` is cancelled.

    Raises: Stopped; ConnectionFailed if the connection is lost, or the program prints nothing for
    `silence_timeout_s`; ProgramFailed if the machine runs no commands or has no Python, or the program
    fails."""
    with _channel(transport, label, open_timeout_s) as channel, stop.on_cancel(channel.close):
        order = json.dumps(request).encode() + b"\n"
        try:
            channel.sendall(b"%d\n" % len(source) + source + order)
        except (OSError, EOFError) as error:
            stop.check()
            if not transport.is_active():
                raise _cut(label) from error
        lines = _Lines()
        for piece in _received(channel, label, stop, silence_timeout_s):
            yield from lines.objects(piece)
        stop.check()
        if not transport.is_active():
            raise _cut(label)
        _check_exit(channel, label, lines.others)


class _Lines:
    """Separates the objects of the program from everything else that is printed."""

    def __init__(self) -> None:
        self._rest = b""
        self.others = b""

    def objects(self, piece: bytes) -> Iterator[Mapping[str, Any]]:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > LONGEST_LINE_BYTES:
            lines, self._rest = [*lines, self._rest[:_KEPT_TEXT_BYTES]], b""
        for line in lines:
            found = _read(line)
            if found is not None:
                yield found
            elif line.strip():
                self.others = (self.others + line + b"\n")[-_KEPT_TEXT_BYTES:]


def _read(line: bytes) -> Mapping[str, Any] | None:
    if not line.startswith(b"{") or len(line) > LONGEST_LINE_BYTES:
        return None
    try:
        found = as_object(read_json(line)).get(MARK)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


@contextmanager
def _channel(transport: paramiko.Transport, label: str, timeout_s: float) -> Iterator[paramiko.Channel]:
    """Opens a channel and starts the command. paramiko waits for the answer without a timeout, so a timer
    closes the channel."""
    try:
        channel = transport.open_session(timeout=timeout_s)
    except (paramiko.SSHException, EOFError, OSError) as error:
        if not transport.is_active():
            raise _cut(label) from error
        raise ConnectionFailed(f"{label} opens no further session for a command") from error
    deadline = threading.Timer(timeout_s, channel.close)
    deadline.daemon = True
    deadline.start()
    try:
        channel.set_combine_stderr(True)
        channel.settimeout(_WAKE_UP_S)
        try:
            channel.exec_command(COMMAND)
        except (paramiko.SSHException, EOFError, OSError) as error:
            if not transport.is_active():
                raise _cut(label) from error
            raise ProgramFailed(
                f"{label} runs no commands over SSH: it only lets files and tunnels through"
            ) from error
        finally:
            deadline.cancel()
        yield channel
    finally:
        channel.close()


def _received(
    channel: paramiko.Channel, label: str, stop: CancelToken, silence_timeout_s: float
) -> Iterator[bytes]:
    heard_s = time.monotonic()
    while True:
        try:
            piece = channel.recv(_PIECE_BYTES)
        except TimeoutError:
            stop.check()
            if time.monotonic() - heard_s > silence_timeout_s:
                raise ConnectionFailed(f"A program on {label} does not answer") from None
            continue
        if not piece:
            return
        heard_s = time.monotonic()
        yield piece


def _check_exit(channel: paramiko.Channel, label: str, printed: bytes) -> None:
    channel.status_event.wait(_WAKE_UP_S)
    status = channel.exit_status
    if status == 0:
        return
    said = spoken(printed)
    tail = f'. It says: "{said}"' if said else ""
    if status == NO_PYTHON:
        raise ProgramFailed(f"{label} has no Python 3 that the SSH user can start{tail}")
    raise ProgramFailed(f"A program on {label} ended with status {status}{tail}")


def _cut(label: str) -> ConnectionFailed:
    return ConnectionFailed(f"The connection to {label} was cut.")
