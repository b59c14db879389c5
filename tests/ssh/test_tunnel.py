"""Start of the tunnel on a transport that is lost at any moment."""

import threading
from typing import Any

import pytest

from comfyui_workflow.errors import ConnectionFailed
from comfyui_workflow.parsing.ssh_address import parse_ssh_address
from comfyui_workflow.ssh.tunnel import open_tunnel


class CutAfter:
    """A transport that is active for the first `looks` calls of `is_active`."""

    def __init__(self, looks: int) -> None:
        self._looks_left = looks

    def is_active(self) -> bool:
        self._looks_left -= 1
        return self._looks_left >= 0

    def close(self) -> None:
        pass

    def stop_thread(self) -> None:
        pass


@pytest.mark.parametrize("looks", range(4))
def test_a_transport_that_is_cut_while_the_tunnel_starts_fails_and_keeps_nobody_waiting(looks: int) -> None:
    """All runs of an instance wait for one connection: if its opening hangs, all of them hang."""
    errors: list[ConnectionFailed] = []

    def start() -> None:
        transport: Any = CutAfter(looks)
        try:
            open_tunnel(transport, parse_ssh_address("ssh root@host"), 8188, window_bytes=65_536)
        except ConnectionFailed as error:
            errors.append(error)

    opening = threading.Thread(target=start, daemon=True)
    opening.start()
    opening.join(10)
    assert not opening.is_alive()
    assert len(errors) == 1
