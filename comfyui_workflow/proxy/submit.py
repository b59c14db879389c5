"""A prompt that a client posted at a local port and whose answer was lost: it gets into the queue once.

How it works. What is posted gets a prompt id, if it has none (`prompt_rewrite`), and is sent byte for byte.
Only where the connection breaks before ComfyUI answers does this come in: the instance is asked for that id
over a new connection, and the prompt is sent again where it is not there, by `comfyui.submit`. A ComfyUI that
chooses the ids itself cannot be asked for one: there the client is told that the answer was lost.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from aiohttp import web

from comfyui_workflow.comfyui.client import ComfyUIClient, RawAnswer, Submission
from comfyui_workflow.comfyui.prompt_lookup import takes_our_ids
from comfyui_workflow.comfyui.submit import IN_DOUBT_S, PromptKey, PromptSender, submit_once
from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.errors import ComfyUIUnavailable, PromptRefused
from comfyui_workflow.parsing.untrusted import a_text, an_object, read_json
from comfyui_workflow.proxy.error_responses import AnswerLost, InstanceUnreachable
from comfyui_workflow.proxy.lease import InstanceLease

log = logging.getLogger(__name__)

RESUBMIT_FOR_S = 45.0
"""How long the client of a lost answer waits for another one."""
PAUSE_S = 1.0
READ_TIMEOUT_S = 10.0

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class LostPrompt:
    """What was sent without an answer, at a moment of the monotonic clock. `path` has its query."""

    prompt_id: str
    content: bytes
    path: str
    headers: Mapping[str, str]
    lost_at_s: float


async def resubmit(lost: LostPrompt, approach: InstanceLease) -> RawAnswer:
    """ComfyUI's answer, or one in its words where it has the prompt already. Raises: AnswerLost."""
    until_s = time.monotonic() + RESUBMIT_FOR_S
    owner, stop = PortPrompt(lost), CancelToken()
    try:
        while True:
            try:
                return await _resubmit_now(owner, approach, stop)
            except (InstanceUnreachable, ComfyUIUnavailable) as error:
                if isinstance(error, AnswerLost) or time.monotonic() > until_s:
                    raise _not_known(approach.name) from error
                log.info("%s: the prompt %s is looked for again: %s", approach.name, lost.prompt_id, error)
            await asyncio.sleep(PAUSE_S)
    finally:
        stop.cancel("its client waits no longer")


def response_of(answer: RawAnswer) -> web.Response:
    kind = "application/json" if _is_json(answer.content) else "text/plain"
    return web.Response(status=answer.status, body=answer.content, content_type=kind)


class PortPrompt(PromptSender):
    """The prompt of one client of a local port. `client` leads to the instance as it can be reached now."""

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
        """Nothing is kept: who restarts this server cuts its clients off."""

    def send(self) -> Submission:
        if self.client is None:
            raise AssertionError("the way to the instance comes first")
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
    """The prompt's id, where ComfyUI took it."""
    if status != 200:
        return None
    try:
        return a_text(an_object(read_json(content)).get("prompt_id"))
    except ValueError:
        return None


async def _resubmit_now(owner: PortPrompt, approach: InstanceLease, stop: CancelToken) -> RawAnswer:
    async with approach.use() as way:
        try:
            answer = await _in_thread(partial(_submit, way.base_url, owner, stop, approach.name))
        except AnswerLost:
            raise
        except ComfyUIUnavailable as error:
            raise approach.forget(way, error) from error
        approach.succeeded(way)
        return answer


def _submit(base_url: str, owner: PortPrompt, stop: CancelToken, name: str) -> RawAnswer:
    """Raises: ComfyUIUnavailable; AnswerLost; Stopped."""
    client = owner.client = ComfyUIClient(base_url, read_timeout_s=READ_TIMEOUT_S)
    with closing(client), suppress(PromptRefused):  # its words are the answer
        if not takes_our_ids(client):
            raise _not_known(name)
        submission = submit_once(client, owner, stop)
        if submission is not None and owner.answer is None:
            return RawAnswer(status=200, content=_words_of(submission))
    if owner.answer is None:
        raise _not_known(name)
    return owner.answer


def _words_of(submission: Submission) -> bytes:
    """Its number in the queue is not told to who asks later: no client can do anything with it."""
    said = {"prompt_id": submission.prompt_id, "number": 0, "node_errors": {}}
    return web.json_response(said).body  # type: ignore[return-value]


def _not_known(name: str) -> AnswerLost:
    return AnswerLost(
        f"The connection to {name} was lost while it was asked: "
        "it may or may not have done what it was asked for."
    )


def _is_json(content: bytes) -> bool:
    try:
        read_json(content)
    except ValueError:
        return False
    return True


async def _in_thread(work: Callable[[], Result]) -> Result:
    """In a thread of its own that keeps no process alive, as those of `asyncio.to_thread` do."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result = error = None
        try:
            result = work()
        except Exception as caught:  # noqa: BLE001 - whoever awaits it gets it
            error = caught
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            log.debug("nobody waits any more for what a thread of a local port did")

    threading.Thread(target=run, name="resubmission", daemon=True).start()
    return await future
