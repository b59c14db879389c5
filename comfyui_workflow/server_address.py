"""Address of the server for the commands, read from the environment without the other settings.

`settings.py` describes and checks all settings, but importing it takes longer than a command that lists runs.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from comfyui_workflow.errors import ConfigurationError

PREFIX = "COMFYUI_WORKFLOW_"
DEFAULT_HOST = "127.0.0.1"
API_TOKEN = f"{PREFIX}API_TOKEN"
DEFAULT_PORT = 5000
_CONNECT_TO = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}  # noqa: S104 - not bound here
"""Address to connect to, by `HOST`. `localhost` may lead to an IPv6 address first, where another program may
listen on the same port (AirPlay on macOS)."""


@dataclass(frozen=True, kw_only=True)
class ServerAddress:
    url: str
    api_token: str | None = field(default=None, repr=False)
    is_named: bool = False
    """True if SERVER_URL is set: then the server must exist.

    Otherwise the URL is built from HOST and PORT."""


def server_address(environment: Mapping[str, str] = os.environ) -> ServerAddress:
    """Reads the address from the environment. Raises: ConfigurationError."""
    variables = {name.upper(): value for name, value in environment.items() if value}
    token, url = variables.get(API_TOKEN), variables.get(f"{PREFIX}SERVER_URL")
    if url is not None:
        return ServerAddress(url=url, api_token=token, is_named=True)
    host = variables.get(f"{PREFIX}HOST", DEFAULT_HOST)
    host = _CONNECT_TO.get(host, host)
    port = _port(variables.get(f"{PREFIX}PORT", str(DEFAULT_PORT)))
    return ServerAddress(url=f"http://{f'[{host}]' if ':' in host else host}:{port}", api_token=token)


def _port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise ConfigurationError(f"{PREFIX}PORT: {text!r} is not a port number (0 to 65535)")
    return port
