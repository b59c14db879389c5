"""The command `comfyui-workflow` for a shell, forked from a process that has already imported it, because a
page calls it a dozen times.

with ForkedCommand(directory):     # creates the command in this directory, for PATH
    ...
"""

import json
import os
import socket
import sys
import threading
from multiprocessing import connection
from pathlib import Path
from typing import Self

from tests.processes import fork_python

SCRIPT = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as asked:
    asked.connect({socket!r})
    given = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(asked, [len(given).to_bytes(4)], [1, 2])
    asked.sendall(given)
    sys.exit(int(asked.recv(16) or b"1"))
"""
"""A Python script with few imports: passes its arguments, directory, environment and output to the parent
process."""


class ForkedCommand:
    def __init__(self, directory: Path) -> None:
        self._socket = directory / "socket"
        self._script = directory / "comfyui-workflow"
        self._listener = socket.socket(socket.AF_UNIX)
        self._thread = threading.Thread(target=self._serve, name="forked commands", daemon=True)

    def __enter__(self) -> Self:
        self._listener.bind(str(self._socket))
        self._listener.listen()
        self._script.write_text(SCRIPT.format(python=sys.executable, socket=str(self._socket)))
        self._script.chmod(0o755)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                asked, _ = self._listener.accept()
            except OSError:  # the socket was shut down
                return
            threading.Thread(target=_answer, args=(asked,), daemon=True).start()


def _answer(asked: socket.socket) -> None:
    """Runs one command and sends its exit code. Kills it if the client disconnects."""
    with asked:
        length, (output, errors), _, _ = socket.recv_fds(asked, 4, 2)
        given = asked.recv(int.from_bytes(length), socket.MSG_WAITALL)
        arguments, directory, env = json.loads(given)
        process = fork_python(
            ["-m", "comfyui_workflow", *arguments],
            env=env,
            directory=Path(directory),
            output=output,
            errors=errors,
        )
        os.close(output)
        os.close(errors)
        connection.wait([process.sentinel, asked])
        if process.exitcode is None:
            process.kill()
        process.join()
        asked.sendall(str(process.exitcode).encode())
