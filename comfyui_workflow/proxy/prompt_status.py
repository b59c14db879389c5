"""Where prompts are, asked of ComfyUI after nobody listened for a while."""

import asyncio
import json
from urllib.parse import quote

import aiohttp

from comfyui_workflow.comfyui.http_responses import bounded_json
from comfyui_workflow.errors import LimitExceeded
from comfyui_workflow.parsing.untrusted import a_list, an_object
from comfyui_workflow.proxy.lease import AnswerTooLong, Upstream, whole
from comfyui_workflow.proxy.missed_events import message_of

ASK_TIMEOUT_S = 15.0
MOST_ANSWER_BYTES = 32 * 1024 * 1024
MOST_VALUES = 500_000


async def queued_ids(way: Upstream) -> tuple[set[str], set[str]]:
    """Of what runs, and of what waits. Raises: aiohttp.ClientError, OSError, TimeoutError."""
    queue = an_object(await _ask(way, "/queue"))
    running, pending = (
        {str(item[1]) for item in a_list(queue.get(key)) if isinstance(item, list) and len(item) > 1}
        for key in ("queue_running", "queue_pending")
    )
    return running, pending


async def history_of(way: Upstream, prompt_id: str) -> object:
    """Raises: aiohttp.ClientError, OSError, TimeoutError."""
    return await _ask(way, f"/history/{quote(prompt_id, safe='')}")


def with_prompt_id(frame: str, prompt_id: str) -> str:
    """What ComfyUI says first after a reconnect lacks the prompt. A client that has not noticed any would not
    expect that."""
    data = dict(an_object(message_of(frame).get("data")))
    node_id = data.get("node")
    return json.dumps(
        {"type": "executing", "data": {"display_node": node_id, "prompt_id": prompt_id, **data}}
    )


async def _ask(way: Upstream, target: str) -> object:
    """Raises: aiohttp.ClientError, OSError, TimeoutError."""
    timeout = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
    async with way.kept.get(way.url(target), timeout=timeout, allow_redirects=False) as answer:
        content = await whole(answer, MOST_ANSWER_BYTES)
    try:
        where = f"in answer to GET {target}"
        return await asyncio.to_thread(bounded_json, content, MOST_VALUES, MOST_ANSWER_BYTES, where)
    except ValueError as error:
        raise aiohttp.ClientPayloadError(f"{target} answered with what is no JSON") from error
    except LimitExceeded as error:
        raise AnswerTooLong(str(error)) from error
