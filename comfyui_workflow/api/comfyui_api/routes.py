"""The API of comfyui-api: below /comfyui-api, and at the root of a port of its own."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import BoundedSemaphore
from typing import IO, Any

from flask import Blueprint, Response, jsonify, request

from comfyui_workflow import __version__
from comfyui_workflow.api import custom_workflow_paths
from comfyui_workflow.api.auth import is_authorized
from comfyui_workflow.api.comfyui_api import schemas
from comfyui_workflow.api.comfyui_api.documents import (
    NOT_DOWNLOADED,
    accepted_document,
    download_failure,
    failure_of,
    request_document,
    state_document,
    stats_document,
)
from comfyui_workflow.api.comfyui_api.errors import (
    InvalidBody,
    InvalidPart,
    PromptNotRun,
    error_response,
    http_error_response,
    invalid_body,
)
from comfyui_workflow.api.comfyui_api.model_urls import read_download
from comfyui_workflow.api.comfyui_api.requests import NAME, TARGET_HEADER, PromptReader, prompt_reader
from comfyui_workflow.api.comfyui_api.workflow_requests import errors_of_workflows, made_prompt, shown_values
from comfyui_workflow.api.mount import Api, ApiServices
from comfyui_workflow.api.operations import Operation, Section, register
from comfyui_workflow.api.request import idempotency_key, json_body
from comfyui_workflow.api.run_requests import OrderReader
from comfyui_workflow.api.spooled_json import spooled_response, spooling, write_base64
from comfyui_workflow.errors import InvalidRequest, JobNotFound, ProvisionFailed, ServerBusy
from comfyui_workflow.instances.services import InstanceServices
from comfyui_workflow.instances.state import Reachability
from comfyui_workflow.runs.job import JobStatus
from comfyui_workflow.runs.target import tag_of
from comfyui_workflow.runs.upload_target import UploadKind
from comfyui_workflow.services.custom_workflows.service import CustomWorkflows
from comfyui_workflow.services.jobs.service import JobService
from comfyui_workflow.services.jobs.view import DeliveredFile, JobView, output_of
from comfyui_workflow.services.model_downloads import ModelDownloads
from comfyui_workflow.services.models import ModelService, instance_key
from comfyui_workflow.settings import Settings

PREFIX = "/comfyui-api"
TAG = "Prompts"
MAX_WAITING = 6
"""Maximum number of synchronous prompts at the port of the server. Each occupies a thread of the server, and
most threads must remain for other requests."""
OWN_PORT_THREADS = 48
MAX_WAITING_AT_OWN_PORT = 40
LONGEST_WAIT_S = 3600.0
"""The wait is repeated: this limits only how long a lost notification could be missed."""

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class PromptViews:
    jobs: JobService
    models: ModelService
    model_downloads: ModelDownloads
    reader: PromptReader
    custom: CustomWorkflows
    instances: InstanceServices
    waiting: BoundedSemaphore
    settings: Settings
    spool_dir: Path

    def prompt(self) -> Response:
        key = idempotency_key(f" {NAME} {self._target()}")
        body = _body()
        return self._answered(body, lambda: (self._submitted(body, key), {}))

    def run_workflow(self, name: str) -> Response:
        key = idempotency_key(f" {NAME} {self._target()} {name}")
        with errors_of_workflows():
            body = _body()
        return self._answered(body, lambda: self._made(name, body, key))

    def _answered(self, body: Json, submit: Callable[[], tuple[JobView, Json]]) -> Response:
        """`submit` returns the job, and what the answer has beside its document."""
        if _is_asynchronous(body):
            view, more = submit()
            return _accepted({**accepted_document(view), **more})
        with self._waiting("send a webhook"):
            view, more = submit()
            return self._finished(view, more)

    def state(self, prompt_id: str) -> Response:
        found = self.jobs.named(prompt_id, NAME)
        if not found:
            raise JobNotFound(f"Prompt not found: {prompt_id[:100]}")
        view = found[0]
        head = state_document(view)
        if view.job.final is not JobStatus.SUCCEEDED:
            return jsonify(head)
        return _with_files(head, view, self.spool_dir)

    def interrupt(self) -> Response:
        prompt_id = _body().get("id")
        if not isinstance(prompt_id, str):
            return invalid_body("body/id Required")
        unfinished = [each for each in self.jobs.named(prompt_id, NAME) if not each.status.is_final]
        for view in unfinished:
            self.jobs.cancel(view.job.job_id)
        response = jsonify(id=prompt_id, interrupted="success" if unfinished else "failed")
        response.status_code = 200 if unfinished else 404
        return response

    def download(self) -> Response:
        with _as_bad_request():
            wanted = read_download(_body(), self.models.rules)
        run_request, instance = self._orders.instance_of(self._target())
        key = instance_key(run_request, instance.host_key if instance is not None else None)
        if not wanted.is_awaited:
            with _as_bad_request():
                self.model_downloads.start(key, wanted.order)
            response = jsonify({**wanted.echo, "status": "started"})
            response.status_code = 202
            return response
        began_s = time.monotonic()
        with self._waiting("leave out wait"), _as_bad_request():
            placed = self.model_downloads.run(key, wanted.order)
        duration_s = round(time.monotonic() - began_s, 3)
        return jsonify({**wanted.echo, "status": "completed", "size": placed.size, "duration": duration_s})

    def model_lists(self) -> Response:
        wanted, instance = self._orders.instance_of(self._target())
        host_key = instance.host_key if instance is not None else None
        return jsonify(self.models.by_folder(wanted, host_key=host_key))

    def health(self) -> Response:
        return jsonify(version=__version__, status="healthy")

    def ready(self) -> Response:
        is_ready = self._has_room() and self._has_ready_instance()
        response = jsonify(version=__version__, status="ready" if is_ready else "not ready")
        response.status_code = 200 if is_ready else 503
        return response

    @property
    def _orders(self) -> OrderReader:
        return self.reader.orders

    def _target(self) -> str:
        return request.headers.get(TARGET_HEADER, "").strip() or self.reader.default_target

    def _submitted(self, body: dict[str, Any], key: str | None) -> JobView:
        before = self.jobs.submitted_before(key)
        return before or self.jobs.submit(self.reader.read(body, self._target()), key)

    def _made(self, name: str, body: Json, key: str | None) -> tuple[JobView, Json]:
        """Submits the prompt of a custom workflow. A repeated request generates no second one."""
        before = self.jobs.submitted_before(key)
        if before is not None:
            return before, {"input": shown_values(body.get("input"))}
        made = made_prompt(self.custom, name, body)
        with errors_of_workflows():
            order = self.reader.read(made.body, self._target(), made.source)
        return self.jobs.submit(order, key), {"input": made.values}

    def _finished(self, view: JobView, more: Json) -> Response:
        """Waits for the prompt, as long as it takes. Raises: InvalidPart, PromptNotRun, ServerBusy."""
        view = self.jobs.wait(view.job.job_id, LONGEST_WAIT_S)
        while view.job.final is None and not self.jobs.is_stopping:
            view = self.jobs.wait(view.job.job_id, LONGEST_WAIT_S)
        if view.job.final is None:
            raise ServerBusy(
                f"The server stops. The prompt goes on after its next start: GET /prompt/{view.job.client_id}"
            )
        if view.status is JobStatus.SUCCEEDED:
            return _with_files({**request_document(view), **more}, view, self.spool_dir)
        if view.run.error_code in NOT_DOWNLOADED:
            raise InvalidPart(*download_failure(view))
        raise PromptNotRun(failure_of(view))

    @contextmanager
    def _waiting(self, advice: str) -> Iterator[None]:
        """Takes one of the places of clients that wait. Raises: ServerBusy."""
        if not self.waiting.acquire(blocking=False):
            raise ServerBusy(f"Too many clients wait: try again in a moment, or {advice}")
        try:
            yield
        finally:
            self.waiting.release()

    def _has_room(self) -> bool:
        most = self.settings.comfyui_api_max_queue_depth
        return not most or self.jobs.unfinished_count(NAME) < most

    def _has_ready_instance(self) -> bool:
        """True if an instance of the target is ready. The question connects to one that is not known yet. An
        ssh string is not monitored: its runs connect to it. A client without the token connects to nothing
        and asks only about the default target: an instance that is not known yet counts as ready there."""
        may_connect = is_authorized(self.settings)
        target = self._target() if may_connect else self.reader.default_target
        wanted = self._orders.read_without_workflow({"ssh_connection": target})
        tag = tag_of(wanted.target)
        known = self.instances.directory.all()
        found = [each for each in known if tag is not None and each.is_eligible_for(tag)]
        if tag is None:
            named = self.instances.directory.get(wanted.instance_id) if wanted.instance_id else None
            if named is None:
                return True
            found = [named]
        states = {each.id: self.instances.monitors.state(each.id) for each in found}
        unknown = [each for each in found if states[each.id].reachability is Reachability.UNKNOWN]
        if not may_connect:
            return bool(unknown) or any(state.is_ready for state in states.values())
        for each in unknown:
            self.instances.monitors.acquire(each)
        return any(self.instances.monitors.state(each.id).is_ready for each in found)


def create_blueprint(
    services: ApiServices, *, prefix: str = PREFIX, max_waiting: int = MAX_WAITING
) -> Blueprint:
    routes = Blueprint("comfyui_api", __name__)
    views = PromptViews(
        jobs=services.jobs,
        models=services.models,
        model_downloads=services.model_downloads,
        reader=prompt_reader(services),
        custom=services.custom_workflows,
        instances=services.instances,
        waiting=BoundedSemaphore(max_waiting),
        settings=services.settings,
        spool_dir=services.settings.data_dir,
    )
    register(routes, operations(prefix), views)
    return routes


def _body() -> dict[str, Any]:
    """Raises: InvalidBody."""
    try:
        return json_body()
    except InvalidRequest as error:
        raise InvalidBody(str(error)) from error


@contextmanager
def _as_bad_request() -> Iterator[None]:
    """A model that cannot be downloaded is an error 400 of comfyui-api."""
    try:
        yield
    except ProvisionFailed as error:
        raise InvalidRequest(str(error)) from error


def _is_asynchronous(body: dict[str, Any]) -> bool:
    """True with a webhook, and if the upload is asynchronous. A body with wrong types is refused later."""
    if body.get("webhook") or body.get("webhook_v2"):
        return True
    upload = next((body[kind] for kind in UploadKind if body.get(kind) is not None), None)
    return isinstance(upload, dict) and upload.get("async") is True


def _accepted(document: Json) -> Response:
    response = jsonify(document)
    response.status_code = 202
    return response


def _with_files(head: dict[str, Any], view: JobView, spool_dir: Path) -> Response:
    """Adds the files to a document. Raises: PromptNotRun if a file is not on this machine any more."""
    files = output_of(view).files
    rest = {"filenames": [file.filename for file in files], "stats": stats_document(view)}
    with spooling(spool_dir) as spooled:
        spooled.write(json.dumps(head).encode()[:-1] + b', "images": [')
        for number, file in enumerate(files):
            spooled.write(b", " if number else b"")
            _write_image(spooled, file)
        spooled.write(b"], " + json.dumps(rest).encode()[1:])
    return spooled_response(spooled)


def _write_image(spooled: IO[bytes], file: DeliveredFile) -> None:
    if file.url is not None:
        spooled.write(json.dumps(file.url).encode())
        return
    try:
        with file.path.open("rb") as source:
            spooled.write(b'"')
            write_base64(spooled, source)
            spooled.write(b'"')
    except OSError as error:
        raise PromptNotRun(f"{file.filename} cannot be read: {error.strerror} ({file.path})") from error


def operations(prefix: str) -> tuple[Operation, ...]:
    return (*_prompt_operations(prefix), _workflow_operation(prefix), *_instance_operations(prefix))


def _prompt_operations(prefix: str) -> Iterator[Operation]:
    yield Operation(
        method="POST",
        rule=f"{prefix}/prompt",
        view=PromptViews.prompt,
        summary="Run a prompt",
        description="Waits for the outputs and returns them. With a webhook: 202 at once. The header "
        f"`{TARGET_HEADER}` says where it runs. Errors: 400 invalid body or input file, 500 the prompt was "
        "not accepted or failed, 503 too many clients wait.",
        body=schemas.PromptBody,
        answer=schemas.PromptResponse,
    )
    yield Operation(
        method="GET",
        rule=f"{prefix}/prompt/<prompt_id>",
        view=PromptViews.state,
        summary="Get the state of a prompt, and its outputs when it is completed",
        description="An addition to comfyui-api. Of several prompts with one id, the newest. Errors: 404 "
        "unknown, or older than seven days.",
        answer=schemas.PromptState,
    )
    yield Operation(
        method="POST",
        rule=f"{prefix}/interrupt",
        view=PromptViews.interrupt,
        summary="Cancel a prompt, waiting or running",
        description="404 with `failed`: no unfinished prompt has this id.",
        body=schemas.InterruptPromptBody,
        answer=schemas.Interrupted,
    )


def _workflow_operation(prefix: str) -> Operation:
    return Operation(
        method="POST",
        rule=f"{prefix}/workflow/<path:name>",
        view=PromptViews.run_workflow,
        summary="Run a custom workflow",
        description="As `/prompt`, with `input` in place of `prompt`: a file of `WORKFLOW_DIR` makes the "
        "prompt. Errors: those of `/prompt`; 400 the values do not fit, or no prompt can be made from them, "
        "404 no such file, 500 the file cannot be used.",
        body=schemas.WorkflowBody,
        answer=schemas.WorkflowResponse,
    )


def openapi_paths(custom: CustomWorkflows, prefix: str) -> dict[str, Any]:
    """Returns the paths of the custom workflows for the OpenAPI document."""
    answers = {
        "200": ("The outputs", "WorkflowResponse"),
        "202": ("The prompt is stored: with a webhook or an asynchronous upload", "WorkflowResponse"),
        "400": ("The values do not fit, or no prompt can be made from them", "PromptFailure"),
    }
    return custom_workflow_paths.openapi_paths(custom, f"{prefix}/workflow", TAG, "WorkflowBody", answers)


def _instance_operations(prefix: str) -> Iterator[Operation]:
    yield Operation(
        method="POST",
        rule=f"{prefix}/download",
        view=PromptViews.download,
        summary="Download a model on the instance",
        description="202 when the download has begun; with `wait`, 200 when the file is in its place. For "
        "`any`: on the first instance that is ready. Errors: 400 unknown model type, a host that is not in "
        "`COMFYUI_WORKFLOW_PROVISION_HOSTS`, or the file cannot be had; 502 the instance does not answer; "
        "503 too many clients wait.",
        body=schemas.DownloadModelBody,
        answer=schemas.ModelDownload,
    )
    yield Operation(
        method="GET",
        rule=f"{prefix}/models",
        view=PromptViews.model_lists,
        summary="List the models of the instance",
        description="For `any`: those of the first instance that is ready. Errors: 502 it does not answer.",
        answer=schemas.ModelLists,
    )
    yield Operation(
        method="GET",
        rule=f"{prefix}/health",
        view=PromptViews.health,
        summary="Check that the server is alive",
        description="Needs no API token.",
        answer=schemas.HealthProbe,
    )
    yield Operation(
        method="GET",
        rule=f"{prefix}/ready",
        view=PromptViews.ready,
        summary="Check that prompts can run",
        description="503: no instance of the target is ready, or too many prompts wait (`MAX_QUEUE_DEPTH`). "
        "Needs no API token.",
        answer=schemas.ReadyProbe,
    )


def open_paths(prefix: str) -> frozenset[str]:
    """Paths that need no API token: probes."""
    return frozenset({f"{prefix}/health", f"{prefix}/ready"})


def section(prefix: str) -> Section:
    return Section(
        tag=TAG,
        description="Prompts, compatible with comfyui-api of SaladTechnologies. Details: "
        "docs/api/comfyui-api.md",
        operations=operations(prefix),
        failure=schemas.PromptFailure,
        path_parameters={
            "prompt_id": "Id of the prompt",
            "name": "Path of the file in `WORKFLOW_DIR`, without its suffix",
        },
    )


def api(prefix: str, max_waiting: int) -> Api:
    return Api(
        prefix=prefix,
        create_blueprint=partial(create_blueprint, prefix=prefix, max_waiting=max_waiting),
        error_response=error_response,
        http_error_response=http_error_response,
        section=section(prefix),
    )


API = api(PREFIX, MAX_WAITING)
OWN_PORT_API = api("", MAX_WAITING_AT_OWN_PORT)
"""The same at the root, for a port of its own."""
