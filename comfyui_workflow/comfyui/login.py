"""The login before a ComfyUI: a token, or a user with a password (Caddy at vast.ai, ComfyUI-Login, nginx).

read_login(fields) -> Login | None      parses the login fields of a request
Login.headers                           pass the login
"""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.parsing.fields import text
from comfyui_workflow.parsing.untrusted import as_object, as_text, read_json

LOGIN_FIELDS = ("comfyui_token", "comfyui_user", "comfyui_password")
LONGEST = 4096
_TOKEN = re.compile(r"[!-~]+")


@dataclass(frozen=True, kw_only=True)
class Login:
    """Either a token, or a user and a password. Never shown: `repr` leaves the secrets out."""

    token: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def kind(self) -> str:
        return "token" if self.token else "password"

    @property
    def headers(self) -> Mapping[str, str]:
        """RFC 6750 for a token, RFC 7617 for a password."""
        if self.token:
            return {"Authorization": f"Bearer {self.token}"}
        pair = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}

    def encode(self) -> bytes:
        return json.dumps({"token": self.token, "user": self.user, "password": self.password}).encode()


def decode_login(content: bytes) -> Login:
    """Parses what `Login.encode` made. Raises: ValueError."""
    fields = as_object(read_json(content))
    token, user, password = (as_text(fields.get(name)) or "" for name in ("token", "user", "password"))
    if not token and not user:
        raise ValueError("not a login")
    return Login(token=token, user=user, password=password)


def read_login(fields: Mapping[str, Any]) -> Login | None:
    """Parses the login fields; None if all of them are missing or null. Raises: InvalidRequest, without the
    values."""
    token, user = text(fields, "comfyui_token"), text(fields, "comfyui_user")
    password = fields.get("comfyui_password")
    if password is not None and not isinstance(password, str):
        raise InvalidRequest("comfyui_password must be a text")
    if any(len(each or "") > LONGEST for each in (token, user, password)):
        raise InvalidRequest(
            f"comfyui_token, comfyui_user and comfyui_password have at most {LONGEST} characters"
        )
    if token is not None:
        return _with_token(token, user, password)
    if user is None and password is None:
        return None
    if not user or password is None or ":" in user or not (user + password).isprintable():
        raise InvalidRequest(
            "comfyui_user and comfyui_password belong together: both are printable, and the user has no colon"
        )
    return Login(user=user, password=password)


def _with_token(token: str, user: str | None, password: str | None) -> Login:
    if user is not None or password is not None:
        raise InvalidRequest("Give comfyui_token, or comfyui_user and comfyui_password, not both")
    if not _TOKEN.fullmatch(token):
        raise InvalidRequest("comfyui_token must be printable ASCII characters without spaces")
    return Login(token=token)
