"""Check of the peer user of each HTTP connection, once, when it is accepted."""

import socket
from collections.abc import Callable
from typing import Any

PEER_REFUSAL = "comfyui_workflow.peer_refusal"
"""Key in the WSGI environment: the error message for a client that is refused."""


def check_peers(listener: Any, refusal_of: Callable[[socket.socket], str | None]) -> None:
    """Makes a listener check the peer of each connection. Call it before the first connection is accepted.

    `refusal_of` returns an error message, or None. The application sends the refusal."""
    listener.channel_class = _checking(listener.channel_class, refusal_of)


def _checking(channel_class: Any, refusal_of: Callable[[socket.socket], str | None]) -> type:
    class Task(channel_class.task_class):  # type: ignore[misc]
        def get_environment(self) -> dict[str, Any]:
            environment: dict[str, Any] = super().get_environment()
            if self.channel.peer_refusal is not None:
                environment[PEER_REFUSAL] = self.channel.peer_refusal
            return environment

    class Channel(channel_class):  # type: ignore[misc]
        task_class = Task

        def __init__(self, server: Any, connection: socket.socket, *arguments: Any, **options: Any) -> None:
            try:
                self.peer_refusal = refusal_of(connection)
            except OSError:  # the client has closed it already
                self.peer_refusal = "This connection has ended"
            super().__init__(server, connection, *arguments, **options)

    return Channel
