"""Resubmits a prompt of a local client whose response was lost, so that it is queued exactly once.

How it works. Every posted prompt gets a prompt id if it has none (`prompt_rewrite`), and is sent byte for
byte. This module is used only if the connection breaks before ComfyUI answers: the instance is asked for that
id over a new connection, and the prompt is sent again if ComfyUI does not have it (`comfyui.submit`). A
ComfyUI that chooses the ids itself cannot be asked: then the client gets the error `answer_lost`.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from comfyui_workflow.comfyui.client import ComfyUIClient, RawAnswer, Submission
from comfyui_workflow.comfyui.prompt_lookup import accepts_prompt_ids
from comfyui_workflow.comfyui.submit import IN_DOUBT_S, PromptKey, PromptSender, submit_once
from comfyui_workflow.concurrency import CancelToken, run_in_thread
from comfyui_workflow.errors import ComfyUIUnavailable, PromptRefused
from comfyui_workflow.parsing.untrusted import as_object, as_text, read_json
from comfyui_workflow.proxy.error_responses import AnswerLost, InstanceUnreachable
from comfyui_workflow.proxy.lease import InstanceLease

log = logging.getLogger(__name__)

RESUBMIT_FOR_S = 45.0
"""How long the client waits for a replacement of the lost response."""
PAUSE_S = 1.0
READ_TIMEOUT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class LostPrompt:
    """A request that got no response. `path` includes the query; `lost_at_s` is a time of the monotonic
    clock."""

    prompt_id: str
    content: bytes
    path: str
    headers: Mapping[str, str]
    lost_at_s: float


async def resubmit(lost: LostPrompt, lease: InstanceLease) -> RawAnswer:
    """Returns ComfyUI's response, or one in the same format if ComfyUI already has the prompt. Raises:
    AnswerLost."""
    until_s = time.monotonic() + RESUBMIT_FOR_S
    sender, stop = PortPrompt(lost), CancelToken()
    try:
        while True:
            try:
                return await _resubmit_now(sender, lease, stop)
            except (InstanceUnreachable, ComfyUIUnavailable) as error:
                if isinstance(error, AnswerLost) or time.monotonic() > until_s:
                    raise _answer_lost(lease.name) from error
                log.info("%s: the prompt %s is looked up again: %s", lease.name, lost.prompt_id, error)
            await asyncio.sleep(PAUSE_S)
    finally:
        stop.cancel("the client does not wait any longer")


def response_of(answer: RawAnswer) -> web.Response:
    kind = "application/json" if _is_json(answer.content) else "text/plain"
    return web.Response(status=answer.status, body=answer.content, content_type=kind)


class PortPrompt(PromptSender):
    """The prompt of one client of a local port. `client` is the HTTP client of the current connection to the
    instance."""

    def __init__(self, lost: LostPrompt) -> None:
        self.client: ComfyUIClient | None = None
        self.answer: RawAnswer | None = None
        self._lost = lost
        self._lost_at_s = lost.lost_at_s

    @property
    def sent(self) -> PromptKey:
        return PromptKey(prompt_id=self._lost.prompt_id, correlation=self._lost.prompt_id)

    def in_doubt_for_s(self) -> float:
        return IN_DOUBT_S - (time.monotonic() - self._lost_at_s)

    def note_sending(self) -> None:
        """Stores nothing: a restart of this server disconnects its clients anyway."""

    def send(self) -> Submission:
        if self.client is None:
            raise AssertionError("the client must be set first")
        lost = self._lost
        try:
            self.answer = answer = self.client.post_raw(lost.path, lost.content, headers=lost.headers)
        except ComfyUIUnavailable:
            self._lost_at_s = time.monotonic()
            raise
        prompt_id = accepted_id(answer.status, answer.content)
        if prompt_id is None:
            raise PromptRefused(f"ComfyUI answered HTTP {answer.status}")
        return Submission(prompt_id=prompt_id, node_errors={})


def accepted_id(status: int, content: bytes) -> str | None:
    """Returns the prompt id if ComfyUI accepted the prompt."""
    if status != 200:
        return None
    try:
        return as_text(as_object(read_json(content)).get("prompt_id"))
    except ValueError:
        return None


async def _resubmit_now(sender: PortPrompt, lease: InstanceLease, stop: CancelToken) -> RawAnswer:
    async with lease.use() as upstream:
        try:
            work = partial(_submit, upstream.base_url, sender, stop, lease.name)
            answer = await run_in_thread(work, "resubmission")
        except AnswerLost:
            raise
        except ComfyUIUnavailable as error:
            raise lease.forget(upstream, error) from error
        lease.succeeded(upstream)
        return answer


def _submit(base_url: str, sender: PortPrompt, stop: CancelToken, name: str) -> RawAnswer:
    """Looks the prompt up and submits it if it is absent. Blocks. Raises: ComfyUIUnavailable; AnswerLost;
    Stopped."""
    client = sender.client = ComfyUIClient(base_url, read_timeout_s=READ_TIMEOUT_S)
    with closing(client), suppress(PromptRefused):  # `sender.answer` has the response
        if not accepts_prompt_ids(client):
            raise _answer_lost(name)
        submission = submit_once(client, sender, stop)
        if submission is not None and sender.answer is None:
            return RawAnswer(status=200, content=_serialize_submission(submission))
    if sender.answer is None:
        raise _answer_lost(name)
    return sender.answer


def _serialize_submission(submission: Submission) -> bytes:
    """`number` is 0, since the queue number is not known any more. No client can use it."""
    body = {"prompt_id": submission.prompt_id, "number": 0, "node_errors": {}}
    return web.json_response(body).body  # type: ignore[return-value]


def _answer_lost(name: str) -> AnswerLost:
    return AnswerLost(
        f"The connection to {name} was lost before the response came: "
        "the request may or may not have taken effect."
    )


def _is_json(content: bytes) -> bool:
    try:
        read_json(content)
    except ValueError:
        return False
    return True
