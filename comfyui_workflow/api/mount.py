"""The APIs, one file a wire format. Each offers `API`; this is the table of where they are mounted.

An API file knows how its clients name an instance, hand over a graph and its files, and word answers and
errors. No file here imports another; what they share is below them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from flask import Blueprint, Flask, Response, request
from werkzeug.exceptions import HTTPException

from comfyui_workflow.api.etags import revalidated
from comfyui_workflow.api.operations import Section
from comfyui_workflow.delivery.webhooks.sender import Outbox
from comfyui_workflow.errors import WorkflowError
from comfyui_workflow.execution.live_progress import LiveProgress
from comfyui_workflow.instances.services import InstanceServices
from comfyui_workflow.server.body_limits import BodyLimit, FindLimit
from comfyui_workflow.services.batches import BatchService
from comfyui_workflow.services.jobs.service import JobService
from comfyui_workflow.services.path_policy import PathPolicy
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.services.uploads import Uploads
from comfyui_workflow.services.validation import ValidationService
from comfyui_workflow.settings import Settings
from comfyui_workflow.stores.damage import DamageReport

MB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class ApiServices:
    """What an API is built on."""

    service: RunService
    batches: BatchService
    jobs: JobService
    outbox: Outbox
    instances: InstanceServices
    inspector: ValidationService
    live_view: LiveProgress
    files: PathPolicy
    uploads: Uploads
    settings: Settings
    damage: DamageReport = field(default_factory=DamageReport)


@dataclass(frozen=True, kw_only=True)
class Api:
    """One wire format: its routes under `prefix`, and how it words what went wrong there."""

    prefix: str
    also_at: tuple[str, ...] = ()
    """Other paths that are its own."""
    create_blueprint: Callable[[ApiServices], Blueprint]
    error_response: Callable[[WorkflowError], Response]
    http_error_response: Callable[[HTTPException], Response]
    body_limit: Callable[[str], BodyLimit | None] = lambda _: None
    """The limit of a path, where this API has one of its own; it is asked before the body is read."""
    section: Section | None = None
    """Its routes in the OpenAPI document."""


def places(apis: tuple[Api, ...]) -> list[str]:
    """The paths below which each is."""
    return [place for api in apis for place in (api.prefix, *api.also_at)]


def find_body_limit(settings: Settings, apis: tuple[Api, ...]) -> FindLimit:
    """The strictest limit of a path: the server's, or one of an API."""
    most_mb = settings.max_upload_mb
    general = BodyLimit(
        most_bytes=most_mb * MB,
        message=f"Request body is larger than {most_mb} MB, the most that this server takes "
        "(COMFYUI_WORKFLOW_MAX_UPLOAD_MB)",
    )

    def limit_of(path: str) -> BodyLimit:
        own = (api.body_limit(path) for api in apis)
        return min((general, *(limit for limit in own if limit)), key=lambda limit: limit.most_bytes)

    return limit_of


def mount(app: Flask, parts: ApiServices, apis: tuple[Api, ...]) -> None:
    """Flask hands a routing 404 or 405 to no blueprint, so the API that owns the path is asked here."""

    def owners() -> list[tuple[str, Api]]:
        prefixes = ((prefix, api) for api in apis for prefix in (api.prefix, *api.also_at))
        return [(prefix, api) for prefix, api in prefixes if f"{request.path}/".startswith(f"{prefix}/")]

    def owner() -> Api:
        return max(owners(), key=lambda owned: len(owned[0]), default=("", apis[0]))[1]

    for api in apis:
        app.register_blueprint(api.create_blueprint(parts))
    app.after_request(lambda response: revalidated(response) if owners() else response)
    app.register_error_handler(WorkflowError, lambda error: owner().error_response(error))
    app.register_error_handler(HTTPException, lambda error: owner().http_error_response(error))
