"""Starts SFTP on a channel, also if the machine prints text before it.

start_client(channel, on_text) -> paramiko.SFTPClient
    Raises: paramiko.SSHException, SFTPError, EOFError, OSError

How it works: the first packet of a server is VERSION, which is easy to tell from text. A `.bashrc`, a message
of the day or a forced command may print text to the same channel: the text before that packet is skipped. If
no such packet comes, the text is often the reason ("Please login as the user ...").

The request and the exchange of versions take a round trip each. They cannot be sent together: OpenSSH opens a
session with a window of zero bytes, and enlarges it when the subsystem runs.
"""

import re
from collections.abc import Callable

import paramiko
from paramiko.sftp import CMD_INIT, SFTPError

MOST_TEXT_BYTES = 64 * 1024
READ_BYTES = 4096
_PROTOCOL = 3
_VERSION_PACKET = re.compile(rb"\0\0(?P<size>..)\x02\0\0\0[\x01-\x06]", re.DOTALL)

OnText = Callable[[bytes], None]


def start_client(channel: paramiko.Channel, on_text: OnText) -> paramiko.SFTPClient:
    """Requests the subsystem and exchanges the versions. `on_text` gets what is received until then, as it
    arrives. Has no time limit: the caller closes the channel."""
    channel.invoke_subsystem("sftp")
    return _Client(channel, on_text)


class _Client(paramiko.SFTPClient):
    def __init__(self, channel: paramiko.Channel, on_text: OnText) -> None:
        self._on_text = on_text
        super().__init__(channel)

    def _send_version(self) -> int:
        """Overrides paramiko's exchange of versions, which accepts no text."""
        greeting = paramiko.Message()
        greeting.add_int(_PROTOCOL)
        self._send_packet(CMD_INIT, greeting)  # type: ignore[attr-defined]
        received = bytearray()
        while (found := _VERSION_PACKET.search(received)) is None:
            if len(received) > MOST_TEXT_BYTES:
                raise SFTPError("text in place of SFTP")
            received += (data := self._receive(READ_BYTES))
            self._on_text(data)
        missing_bytes = found.start() + 4 + int.from_bytes(found["size"]) - len(received)
        while missing_bytes > 0:
            missing_bytes -= len(self._receive(missing_bytes))
        if missing_bytes < 0:
            raise SFTPError("text behind the version of SFTP")
        return _PROTOCOL

    def _receive(self, most_bytes: int) -> bytes:
        data: bytes = self.sock.recv(most_bytes)
        if not data:
            raise EOFError
        return data
