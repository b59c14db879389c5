"""Requests the state of prompts from ComfyUI after a websocket was disconnected."""

import asyncio
import json
from urllib.parse import quote

import aiohttp

from comfyui_workflow.comfyui.http_responses import bounded_json
from comfyui_workflow.errors import LimitExceeded
from comfyui_workflow.parsing.untrusted import as_list, as_object
from comfyui_workflow.proxy.lease import AnswerTooLong, Upstream, read_all
from comfyui_workflow.proxy.missed_events import message_of

ASK_TIMEOUT_S = 15.0
MOST_ANSWER_BYTES = 32 * 1024 * 1024
MOST_VALUES = 500_000


async def queued_ids(upstream: Upstream) -> tuple[set[str], set[str]]:
    """Returns the ids of the running and of the pending prompts. Raises: aiohttp.ClientError, OSError,
    TimeoutError."""
    queue = as_object(await _ask(upstream, "/queue"))
    running, pending = (
        {str(item[1]) for item in as_list(queue.get(key)) if isinstance(item, list) and len(item) > 1}
        for key in ("queue_running", "queue_pending")
    )
    return running, pending


async def history_of(upstream: Upstream, prompt_id: str) -> object:
    """Raises: aiohttp.ClientError, OSError, TimeoutError."""
    return await _ask(upstream, f"/history/{quote(prompt_id, safe='')}")


def with_prompt_id(frame: str, prompt_id: str) -> str:
    """Adds the prompt id to an `executing` message. ComfyUI's first one after a reconnect lacks it, and a
    client that did not notice the reconnect does not expect that."""
    data = dict(as_object(message_of(frame).get("data")))
    node_id = data.get("node")
    return json.dumps(
        {"type": "executing", "data": {"display_node": node_id, "prompt_id": prompt_id, **data}}
    )


async def _ask(upstream: Upstream, target: str) -> object:
    """Raises: aiohttp.ClientError, OSError, TimeoutError."""
    timeout = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
    async with upstream.kept.get(upstream.url(target), timeout=timeout, allow_redirects=False) as answer:
        content = await read_all(answer, MOST_ANSWER_BYTES)
    try:
        where = f"in answer to GET {target}"
        return await asyncio.to_thread(bounded_json, content, MOST_VALUES, MOST_ANSWER_BYTES, where)
    except ValueError as error:
        raise aiohttp.ClientPayloadError(f"the answer to {target} is not JSON") from error
    except LimitExceeded as error:
        raise AnswerTooLong(str(error)) from error
