"""Adds a client id and a prompt id to a prompt that a client of a local port submits."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from comfyui_workflow.comfyui.prompt_lookup import new_prompt_id
from comfyui_workflow.parsing.untrusted import as_text
from comfyui_workflow.proxy.http import allow_body

PATHS = ("/prompt", "/api/prompt")
LARGE_BYTES = 1024 * 1024
"""A larger body is parsed in a thread, so that the event loop does not block."""


@dataclass(frozen=True, kw_only=True)
class PromptBody:
    """The body to send, and the client id and prompt id that ComfyUI reads in it; None if it reads none."""

    content: bytes
    client_id: str | None
    prompt_id: str | None = None
    has_our_client_id: bool = False
    """True if the client id was added here."""


def is_prompt(request: web.BaseRequest) -> bool:
    return request.method == "POST" and request.raw_path.partition("?")[0] in PATHS


async def read_prompt(request: web.BaseRequest, our_id: str) -> PromptBody:
    """Reads the request body and adds what is missing. Without a client id, ComfyUI would report the start
    and the end of the prompt to no socket. Without a prompt id, the prompt could not be looked up after a
    lost response."""
    allow_body(request)
    content = await request.content.read()
    if "Content-Encoding" in request.headers or (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
        return PromptBody(content=content, client_id=None)
    if len(content) > LARGE_BYTES:
        return await asyncio.to_thread(_add_ids, content, our_id)
    return _add_ids(content, our_id)


def _add_ids(content: bytes, our_id: str) -> PromptBody:
    """Adds the ids at the end of the JSON object: if a name occurs twice, ComfyUI uses the last one. Every
    other byte stays the same. A body that ComfyUI would refuse is not changed."""
    try:
        body = json.loads(content.decode())
    except (ValueError, RecursionError):
        return PromptBody(content=content, client_id=None)
    extra_data = body.get("extra_data", {}) if isinstance(body, dict) else None
    if not isinstance(extra_data, dict) or not isinstance(body.get("prompt"), dict):
        return PromptBody(content=content, client_id=None)
    given = body["client_id"] if "client_id" in body else extra_data.get("client_id")
    added_ids = {} if given is not None else {"client_id": our_id}
    if "prompt_id" not in body:
        added_ids["prompt_id"] = new_prompt_id()
    return PromptBody(
        content=_append_fields(content, added_ids),
        client_id=our_id if given is None else as_text(given),
        prompt_id=added_ids.get("prompt_id") or as_text(body["prompt_id"]),
        has_our_client_id=given is None,
    )


def _append_fields(content: bytes, fields: Mapping[str, str]) -> bytes:
    """Returns the JSON object with fields appended, as text."""
    if not fields:
        return content
    end = content.rindex(b"}")
    return content[:end] + b"," + json.dumps(fields).encode()[1:-1] + content[end:]
