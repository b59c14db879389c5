"""Routes of the queue: /prompt, /queue, /interrupt, /history, /free and /ws."""

import asyncio
import json
import uuid
from typing import Any

from aiohttp import web

from comfyui_workflow.sandbox.backend import Backend
from comfyui_workflow.sandbox.validation import validate_graph


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
        verdict = validate_graph(
            body["prompt"],
            node_classes=self._backend.node_classes,
            folders=self._backend.folders,
            targets=body.get("partial_execution_targets"),
        )
        extra_data = body.get("extra_data", {})
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        if verdict.error:
            return _refused(verdict.error, verdict.node_errors)
        prompt_id = self._prompt_id(body)
        self._backend.engine.queue.put((number, prompt_id, body["prompt"], extra_data, verdict.good_outputs))
        return web.json_response(
            {"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors}
        )

    def _number(self, body: Any) -> float:
        if "number" in body:
            return float(body["number"])
        number = self._backend.engine.take_number()
        is_front = "front" in body and body["front"]
        return -number if is_front else number

    def _prompt_id(self, body: dict[str, Any]) -> str:
        if self._backend.faults.is_old:
            return str(uuid.uuid4())
        return str(body.get("prompt_id", uuid.uuid4()))

    async def queue(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._backend.engine.queue.serialize())

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

    async def free(self, request: web.Request) -> web.StreamResponse:
        if (await request.json()).get("free_memory"):
            self._backend.engine.free_memory()
        return web.Response()


def _refused(error: dict[str, Any], node_errors: dict[str, Any] | None = None) -> web.Response:
    return web.json_response({"error": error, "node_errors": node_errors or {}}, status=400)
