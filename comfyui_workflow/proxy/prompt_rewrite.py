"""A prompt on its way to ComfyUI: whose messages are about it."""

import asyncio
import json
from dataclasses import dataclass

from aiohttp import web

from comfyui_workflow.parsing.untrusted import a_text, an_object, read_json
from comfyui_workflow.proxy.http import Heard, body_of

PATHS = ("/prompt", "/api/prompt")
LARGE_BYTES = 1024 * 1024
"""Such a one is read in a thread, so that everything else goes on meanwhile."""


@dataclass(frozen=True, kw_only=True)
class PromptBody:
    """What is sent, and the client id that ComfyUI reads in it; None where it reads none."""

    content: bytes
    client_id: str | None
    is_ours: bool = False


def is_prompt(request: web.BaseRequest) -> bool:
    return request.method == "POST" and request.raw_path.partition("?")[0] in PATHS


async def read_prompt(request: web.BaseRequest, our_id: str) -> PromptBody:
    """With our client id in it where it has none: without one, ComfyUI would tell nobody how it goes."""
    content = b"".join([piece async for piece in body_of(request)])
    if "Content-Encoding" in request.headers or (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
        return PromptBody(content=content, client_id=None)
    if len(content) > LARGE_BYTES:
        return await asyncio.to_thread(_addressed, content, our_id)
    return _addressed(content, our_id)


def accepted_id(heard: Heard) -> str | None:
    """The prompt's id, where ComfyUI took it."""
    if heard.status != 200:
        return None
    try:
        return a_text(an_object(read_json(bytes(heard.body))).get("prompt_id"))
    except ValueError:
        return None


def _addressed(content: bytes, our_id: str) -> PromptBody:
    """Ours is written at the very end: of names that are there twice ComfyUI reads the last. All else stays
    as it is, and so does whatever ComfyUI would refuse."""
    try:
        body = json.loads(content.decode())
    except (ValueError, RecursionError):
        return PromptBody(content=content, client_id=None)
    extra_data = body.get("extra_data", {}) if isinstance(body, dict) else None
    if not isinstance(extra_data, dict) or not isinstance(body.get("prompt"), dict):
        return PromptBody(content=content, client_id=None)
    given = body["client_id"] if "client_id" in body else extra_data.get("client_id")
    if given is not None:
        return PromptBody(content=content, client_id=a_text(given))
    end = content.rindex(b"}")
    ours = b',"client_id":' + json.dumps(our_id).encode()
    return PromptBody(content=content[:end] + ours + content[end:], client_id=our_id, is_ours=True)
