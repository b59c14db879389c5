"""Connections to the HTTP server, asked once each whose they are: when they are accepted."""

import socket
from collections.abc import Callable
from typing import Any

PEER_REFUSAL = "comfyui_workflow.peer_refusal"
"""In the environment of a request: the sentence for a client that is not answered."""


def ask_for_peers(listener: Any, refusal_of: Callable[[socket.socket], str | None]) -> None:
    """Before its first connection is accepted. It is the application that refuses."""
    listener.channel_class = _asking(listener.channel_class, refusal_of)


def _asking(channel_class: Any, refusal_of: Callable[[socket.socket], str | None]) -> type:
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
            except OSError:  # it is gone already
                self.peer_refusal = "This connection has ended"
            super().__init__(server, connection, *arguments, **options)

    return Channel
