"""Routes of the jobs: GET /api/jobs, GET /api/jobs/{id}, and the two that cancel."""

import json
from typing import Any

from aiohttp import web

from comfyui_workflow.sandbox.backend import Backend
from comfyui_workflow.sandbox.jobs import (
    InvalidQuery,
    Job,
    finished_job,
    full_job,
    page,
    queued_job,
    read_query,
)
from comfyui_workflow.sandbox.machine_routes import no_such_page
from comfyui_workflow.sandbox.prompt_ids import is_canonical


class JobRoutes:
    """The routes of a version that does not have them answer as for any unknown path."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/jobs", self.jobs),
            web.get("/api/jobs/{job_id}", self.job),
            web.post("/api/jobs/{job_id}/cancel", self.cancel),
            web.post("/api/jobs/cancel", self.cancel_all),
        ]

    async def jobs(self, request: web.Request) -> web.StreamResponse:
        version = self._backend.faults.version
        if not version.lists_jobs:
            return no_such_page()
        try:
            query = read_query(dict(request.query), version)
        except InvalidQuery as error:
            return _refused(str(error))
        return web.json_response(page(self._all(), query))

    async def job(self, request: web.Request) -> web.StreamResponse:
        version, job_id = self._backend.faults.version, request.match_info["job_id"]
        if not version.lists_jobs:
            return no_such_page()
        entries = self._backend.engine.history.one(job_id)
        if job_id in entries:
            return web.json_response(full_job(job_id, entries[job_id], version))
        job = next((job for job in self._queued() if job["id"] == job_id), None)
        return web.json_response(job) if job else web.json_response({"error": "Job not found"}, status=404)

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        self._require_cancel(request)
        is_cancelled = self._backend.engine.cancel(request.match_info["job_id"])
        return web.json_response({"cancelled": is_cancelled})

    async def cancel_all(self, request: web.Request) -> web.StreamResponse:
        self._require_cancel(request)
        try:
            body = await request.json()
        except json.JSONDecodeError:
            return _refused("Request body must be valid JSON")
        job_ids = body.get("job_ids") if isinstance(body, dict) else None
        if not isinstance(job_ids, list):
            return _refused("job_ids must be a list")
        if invalid := [job_id for job_id in job_ids if not is_canonical(job_id)]:
            shown = [job_id if isinstance(job_id, str) else repr(job_id) for job_id in invalid]
            return _refused("job_ids contains invalid id(s)", invalid_ids=shown)
        answers = [self._backend.engine.cancel(job_id) for job_id in job_ids]
        return web.json_response({"cancelled": any(answers)})

    def _require_cancel(self, request: web.Request) -> None:
        if not self._backend.faults.version.cancels_jobs:
            raise web.HTTPMethodNotAllowed(request.method, ["GET", "HEAD"])

    def _all(self) -> list[Job]:
        version = self._backend.faults.version
        entries = self._backend.engine.history.page(max_items=None, offset=-1)
        return self._queued() + [finished_job(one, entry, version) for one, entry in entries.items()]

    def _queued(self) -> list[Job]:
        version, queue = self._backend.faults.version, self._backend.engine.queue.serialize()
        statuses = {"queue_running": "in_progress", "queue_pending": "pending"}
        return [
            queued_job(item, status, version) for name, status in statuses.items() for item in queue[name]
        ]


def _refused(sentence: str, **more: Any) -> web.Response:
    return web.json_response({"error": sentence, **more}, status=400)
