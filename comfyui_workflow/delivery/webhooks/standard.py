"""Signed webhooks as in the Standard Webhooks specification (https://www.standardwebhooks.com).

How it works. The signature is an HMAC-SHA256 over `id.timestamp.content`. It is made for each attempt,
because receivers refuse a timestamp that is more than five minutes old. Pure: no I/O, no clock.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix of every secret, not a secret


def signing_key(secret: str) -> bytes:
    """Returns the key of a secret: base64, with or without the prefix `whsec_`, with or without padding.

    Raises: ValueError."""
    encoded = secret.strip().removeprefix(SECRET_PREFIX).rstrip("=")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:  # its message may contain a part of the secret
        key = b""
    if not key:
        raise ValueError(
            "must be base64, with or without whsec_ before it: openssl rand -base64 32 makes one"
        )
    return key


def signed_headers(key: bytes | None, message_id: str, at: datetime, content: bytes) -> dict[str, str]:
    """Returns the headers of one attempt to send a message. Without a key, the message is not signed.

    `message_id` is the same in all attempts; `at` is the time of this attempt."""
    seconds = str(int(at.timestamp()))
    headers = {"webhook-id": message_id, "webhook-timestamp": seconds}
    if key is not None:
        signed = f"{message_id}.{seconds}.".encode() + content
        digest = hmac.new(key, signed, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def compact_json(body: Mapping[str, Any]) -> bytes:
    """Returns the JSON of a body as `JSON.stringify` writes it: many receivers parse a body, write it again,
    and verify that. Numbers with an exponent may differ."""
    ordered = _as_in_javascript(body)
    try:
        return json.dumps(ordered, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(ordered, separators=(",", ":")).encode()


def _as_in_javascript(value: Any) -> Any:
    """An object of JavaScript has its whole numbers first, in ascending order: ids of nodes are such keys. A
    whole number has no point."""
    match value:
        case Mapping():
            numbers = sorted(
                (key for key in value if _INDEX.fullmatch(key) and int(key) < 2**32 - 1), key=int
            )
            known = set(numbers)
            others = [key for key in value if key not in known]
            return {key: _as_in_javascript(value[key]) for key in (*numbers, *others)}
        case list() | tuple():
            return [_as_in_javascript(each) for each in value]
        case float() if value.is_integer() and abs(value) < 1e21:
            return int(value)
    return value


def event_body(event_type: str, at: datetime, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the body of a message: `type` such as `prompt.complete`, `timestamp`, and the fields."""
    timestamp = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"type": event_type, "timestamp": timestamp, **fields}
