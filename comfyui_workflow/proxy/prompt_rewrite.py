"""A prompt on its way to ComfyUI: whose messages are about it, and the id by which it can be asked for."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from comfyui_workflow.comfyui.prompt_lookup import new_prompt_id
from comfyui_workflow.parsing.untrusted import a_text
from comfyui_workflow.proxy.http import body_of

PATHS = ("/prompt", "/api/prompt")
LARGE_BYTES = 1024 * 1024
"""Such a one is read in a thread, so that everything else goes on meanwhile."""


@dataclass(frozen=True, kw_only=True)
class PromptBody:
    """What is sent, and the ids of client and prompt that ComfyUI reads in it; None where it reads none."""

    content: bytes
    client_id: str | None
    prompt_id: str | None = None
    is_ours: bool = False
    """Whether the client id is."""


def is_prompt(request: web.BaseRequest) -> bool:
    return request.method == "POST" and request.raw_path.partition("?")[0] in PATHS


async def read_prompt(request: web.BaseRequest, our_id: str) -> PromptBody:
    """With our client id in it where it has none: without one, ComfyUI would tell nobody how it goes. With a
    prompt id as well: without one, nobody could ask for it when the answer is lost."""
    content = b"".join([piece async for piece in body_of(request)])
    if "Content-Encoding" in request.headers or (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
        return PromptBody(content=content, client_id=None)
    if len(content) > LARGE_BYTES:
        return await asyncio.to_thread(_addressed, content, our_id)
    return _addressed(content, our_id)


def _addressed(content: bytes, our_id: str) -> PromptBody:
    """Ours are written at the very end: of names that are there twice ComfyUI reads the last. All else stays
    as it is, and so does whatever ComfyUI would refuse."""
    try:
        body = json.loads(content.decode())
    except (ValueError, RecursionError):
        return PromptBody(content=content, client_id=None)
    extra_data = body.get("extra_data", {}) if isinstance(body, dict) else None
    if not isinstance(extra_data, dict) or not isinstance(body.get("prompt"), dict):
        return PromptBody(content=content, client_id=None)
    given = body["client_id"] if "client_id" in body else extra_data.get("client_id")
    ours = {} if given is not None else {"client_id": our_id}
    if "prompt_id" not in body:
        ours["prompt_id"] = new_prompt_id()
    return PromptBody(
        content=_with(content, ours),
        client_id=our_id if given is None else a_text(given),
        prompt_id=ours.get("prompt_id") or a_text(body["prompt_id"]),
        is_ours=given is None,
    )


def _with(content: bytes, ours: Mapping[str, str]) -> bytes:
    """An object as text, with more names at its end."""
    end = content.rindex(b"}")
    added = b"".join(f",{json.dumps(name)}:{json.dumps(value)}".encode() for name, value in ours.items())
    return content[:end] + added + content[end:]
