"""Where the commands find the server: the few settings that say it, read without the others.

`settings.py` describes and checks all of them, which takes longer than a command that lists runs.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from comfyui_workflow.errors import ConfigurationError

PREFIX = "COMFYUI_WORKFLOW_"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 5000
_REACHED_AT = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not bound


@dataclass(frozen=True, kw_only=True)
class ServerAddress:
    url: str
    api_token: str | None = field(default=None, repr=False)
    is_named: bool = False
    """By SERVER_URL: that server must be there. Otherwise the URL is where HOST and PORT would serve."""


def server_address(environment: Mapping[str, str] = os.environ) -> ServerAddress:
    """Raises: ConfigurationError."""
    said = {name.upper(): value for name, value in environment.items() if value}
    token, url = said.get(f"{PREFIX}API_TOKEN"), said.get(f"{PREFIX}SERVER_URL")
    if url is not None:
        return ServerAddress(url=url, api_token=token, is_named=True)
    host = said.get(f"{PREFIX}HOST", DEFAULT_HOST)
    host = _REACHED_AT.get(host, host)
    port = _port(said.get(f"{PREFIX}PORT", str(DEFAULT_PORT)))
    return ServerAddress(url=f"http://{f'[{host}]' if ':' in host else host}:{port}", api_token=token)


def _port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise ConfigurationError(f"{PREFIX}PORT: {text!r} is no port, a number from 0 to 65535")
    return port
