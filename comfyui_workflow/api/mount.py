"""Mounts the APIs on the Flask app.

How it works: each wire format is a package with its own routes, request readers, schemas and error format,
and offers an `API` object. APIs do not import each other; shared code is in this package or below it. Each
path belongs to the API with the longest matching prefix, which formats the errors of that path.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from flask import Blueprint, Flask, Response, request
from werkzeug.exceptions import HTTPException

from comfyui_workflow.api.etags import with_etag
from comfyui_workflow.api.operations import Section
from comfyui_workflow.delivery.webhooks.sender import Outbox
from comfyui_workflow.errors import WorkflowError
from comfyui_workflow.execution.live_progress import LiveProgress
from comfyui_workflow.instances.services import InstanceServices
from comfyui_workflow.server.body_limits import BodyLimit, FindLimit
from comfyui_workflow.services.batches import BatchService
from comfyui_workflow.services.custom_workflows.service import CustomWorkflows
from comfyui_workflow.services.distributed import DistributedService
from comfyui_workflow.services.input_urls import UrlInputs
from comfyui_workflow.services.jobs.service import JobService
from comfyui_workflow.services.model_downloads import ModelDownloads
from comfyui_workflow.services.models import ModelService
from comfyui_workflow.services.notifications import RunNotifier
from comfyui_workflow.services.path_policy import PathPolicy
from comfyui_workflow.services.provisions import ProvisionService
from comfyui_workflow.services.runs import RunService
from comfyui_workflow.services.uploads import Uploads
from comfyui_workflow.services.validation import ValidationService
from comfyui_workflow.settings import Settings
from comfyui_workflow.stores.base import DistributedSettingsStore
from comfyui_workflow.stores.damage import DamageReport

MB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class ApiServices:
    """The services that the APIs call."""

    service: RunService
    distributed: DistributedService
    batches: BatchService
    jobs: JobService
    outbox: Outbox
    notifier: RunNotifier
    instances: InstanceServices
    inspector: ValidationService
    models: ModelService
    model_downloads: ModelDownloads
    provisions: ProvisionService
    live_view: LiveProgress
    files: PathPolicy
    uploads: Uploads
    urls: UrlInputs
    custom_workflows: CustomWorkflows
    settings: Settings
    distributed_settings: DistributedSettingsStore
    damage: DamageReport = field(default_factory=DamageReport)


@dataclass(frozen=True, kw_only=True)
class Api:
    """One wire format: its routes under `prefix` and the format of its errors."""

    prefix: str
    other_prefixes: tuple[str, ...] = ()
    """Other prefixes that belong to this API."""
    create_blueprint: Callable[[ApiServices], Blueprint]
    error_response: Callable[[WorkflowError], Response]
    http_error_response: Callable[[HTTPException], Response]
    body_limit: Callable[[str], BodyLimit | None] = lambda _: None
    """Returns the limit of a path, or None for the limit of the server. Called before the body is read."""
    section: Section | None = None
    """The routes as a section of the OpenAPI document."""


def api_prefixes(apis: tuple[Api, ...]) -> list[str]:
    """Returns the prefixes of all APIs."""
    return [prefix for api in apis for prefix in (api.prefix, *api.other_prefixes)]


def find_body_limit(settings: Settings, apis: tuple[Api, ...]) -> FindLimit:
    """Returns a function that finds the smallest limit of a path: that of the server or of an API."""
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


def mount(app: Flask, services: ApiServices, apis: tuple[Api, ...]) -> None:
    """Registers the routes and the error handlers. The handlers look up the API by path, because Flask does
    not call the error handlers of a blueprint for a routing error (404, 405)."""

    def owners() -> list[tuple[str, Api]]:
        prefixes = ((prefix, api) for api in apis for prefix in (api.prefix, *api.other_prefixes))
        return [(prefix, api) for prefix, api in prefixes if f"{request.path}/".startswith(f"{prefix}/")]

    def owner() -> Api:
        return max(owners(), key=lambda item: len(item[0]), default=("", apis[0]))[1]

    for api in apis:
        app.register_blueprint(api.create_blueprint(services))
    app.after_request(lambda response: with_etag(response) if owners() else response)
    app.register_error_handler(WorkflowError, lambda error: owner().error_response(error))
    app.register_error_handler(HTTPException, lambda error: owner().http_error_response(error))
