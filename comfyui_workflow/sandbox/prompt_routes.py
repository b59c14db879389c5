"""Routes of the queue: /prompt, /queue, /interrupt, /history, /free and /ws."""

import asyncio
import json
import time
import uuid
from typing import Any

from aiohttp import web

from comfyui_workflow.sandbox.backend import Backend
from comfyui_workflow.sandbox.history import without_secrets
from comfyui_workflow.sandbox.machine_routes import no_such_page
from comfyui_workflow.sandbox.prompt_ids import is_canonical
from comfyui_workflow.sandbox.replacements import REPLACEMENTS, replace_nodes
from comfyui_workflow.sandbox.validation import Verdict, validate_graph

_INVALID_ID = {
    "type": "invalid_prompt_id",
    "message": "prompt_id must be a valid UUID",
    "details": "prompt_id must be a UUID string in canonical lowercase hyphenated form; "
    "omit it to let the server generate one",
    "extra_info": {},
}


class PromptRoutes:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/ws", self.websocket),
            web.get("/prompt", self.count),
            web.post("/prompt", self.submit),
            web.get("/queue", self.queue),
            web.post("/queue", self.change_queue),
            web.post("/interrupt", self.interrupt),
            web.get("/history", self.history),
            web.get("/history/{prompt_id}", self.history_of),
            web.post("/history", self.change_history),
            web.post("/free", self.free),
            web.get("/node_replacements", self.node_replacements),
        ]

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        engine = self._backend.engine
        return await self._backend.hub.serve(
            request, queue_info=engine.queue_info, running_node=engine.running_node_of
        )

    async def count(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._backend.engine.queue_info())

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """Handles POST /prompt. As in ComfyUI, a malformed body raises: a 500 without a reason."""
        self._backend.engine.log.write("got prompt")
        body = await request.json()
        if delay_s := self._backend.faults.now.prompt_delay_s:
            await asyncio.sleep(delay_s)
        number = self._number(body)
        if "prompt" not in body:
            return _refused(
                {
                    "type": "no_prompt",
                    "message": "No prompt provided",
                    "details": "No prompt provided",
                    "extra_info": {},
                }
            )
        version = self._backend.faults.version
        if version.wants_canonical_ids and not _has_canonical_id(body):
            return _refused(_INVALID_ID)
        verdict = self._validate(body)
        if verdict.error:
            self._backend.engine.log.write(f"invalid prompt: {verdict.error}", level="WARNING")
            return _refused(verdict.error, verdict.node_errors)
        prompt_id, extra_data = self._prompt_id(body), self._extra_data(body)
        self._backend.engine.queue.put((number, prompt_id, body["prompt"], extra_data, verdict.good_outputs))
        return web.json_response(
            {"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors}
        )

    def _validate(self, body: dict[str, Any]) -> Verdict:
        """Validates the graph, after the hooks and the node replacements. Raises: any exception of a hook;
        the exceptions of `replace_nodes` and `validate_graph`."""
        graph, version, catalog = body["prompt"], self._backend.faults.version, self._backend.catalog
        for name in catalog:
            catalog[name].on_prompt(graph)
        if version.replaces_nodes:
            replace_nodes(graph, catalog)
        targets = body.get("partial_execution_targets")
        return validate_graph(graph, catalog=catalog, version=version, targets=targets)

    def _extra_data(self, body: dict[str, Any]) -> dict[str, Any]:
        extra_data: dict[str, Any] = body.get("extra_data", {})
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        if self._backend.faults.version.lists_jobs:
            extra_data["create_time"] = int(time.time() * 1000)
        return extra_data

    def _number(self, body: Any) -> float:
        if "number" in body:
            return float(body["number"])
        number = self._backend.engine.take_number()
        is_front = "front" in body and body["front"]
        return -number if is_front else number

    def _prompt_id(self, body: dict[str, Any]) -> str:
        version = self._backend.faults.version
        if not version.knows_prompt_ids or (version.wants_canonical_ids and body.get("prompt_id") is None):
            return str(uuid.uuid4())
        return str(body.get("prompt_id", uuid.uuid4()))

    async def queue(self, request: web.Request) -> web.StreamResponse:
        queue = self._backend.engine.queue.serialize()
        if self._backend.faults.version.lists_jobs:
            queue = {name: [without_secrets(item) for item in items] for name, items in queue.items()}
        return web.json_response(queue)

    async def change_queue(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body.get("clear"):
            self._backend.engine.queue.clear()
        for prompt_id in body.get("delete", []):
            self._backend.engine.queue.delete(prompt_id)
        return web.Response()

    async def interrupt(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.json()
        except json.JSONDecodeError:
            body = {}
        self._backend.engine.interrupt(body.get("prompt_id") or None)
        return web.Response()

    async def history(self, request: web.Request) -> web.StreamResponse:
        max_items = request.query.get("max_items")
        page = self._backend.engine.history.page(
            max_items=int(max_items) if max_items is not None else None,
            offset=int(request.query.get("offset", -1)),
        )
        return web.json_response(page)

    async def history_of(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._backend.engine.history.one(request.match_info["prompt_id"]))

    async def change_history(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body.get("clear"):
            self._backend.engine.history.clear()
        for prompt_id in body.get("delete", []):
            self._backend.engine.history.delete(prompt_id)
        return web.Response()

    async def node_replacements(self, request: web.Request) -> web.StreamResponse:
        if not self._backend.faults.version.replaces_nodes:
            return no_such_page()
        return web.json_response(REPLACEMENTS)

    async def free(self, request: web.Request) -> web.StreamResponse:
        if (await request.json()).get("free_memory"):
            self._backend.engine.free_memory()
        return web.Response()


def _has_canonical_id(body: dict[str, Any]) -> bool:
    return body.get("prompt_id") is None or is_canonical(body["prompt_id"])


def _refused(error: dict[str, Any], node_errors: dict[str, Any] | None = None) -> web.Response:
    return web.json_response({"error": error, "node_errors": node_errors or {}}, status=400)
