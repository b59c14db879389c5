"""Parses the body of `POST /prompt` into the order of a job, as comfyui-api does: schema first, then each
node of the prompt."""

import copy
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from comfyui_workflow.api.comfyui_api.errors import NO_SAVE_NODE, InvalidBody, InvalidPart
from comfyui_workflow.api.comfyui_api.media import PromptMedia
from comfyui_workflow.api.comfyui_api.prompt_models import PromptModels
from comfyui_workflow.api.mount import ApiServices
from comfyui_workflow.api.run_requests import OrderReader, order_reader
from comfyui_workflow.errors import InvalidGraph, InvalidRequest, UrlRefused
from comfyui_workflow.parsing.fields import is_valid_unicode
from comfyui_workflow.provisioning.rules import DownloadRules
from comfyui_workflow.runs.credentials import Credential, RequestSecrets, read_credentials, without_secrets
from comfyui_workflow.runs.image_conversion import (
    FORMATS,
    ImageConversion,
    InvalidConversion,
    read_conversion,
)
from comfyui_workflow.runs.job import JobOrder
from comfyui_workflow.runs.model import RunRequest
from comfyui_workflow.runs.upload_target import ReadUpload, UploadKind, UploadTarget, read_upload
from comfyui_workflow.services.input_urls import UrlInputs
from comfyui_workflow.services.uploads import Uploads
from comfyui_workflow.workflows.editor.file import is_editor_format

NAME = "comfyui-api"
"""Name of the presenter. Stored in the records of jobs; it must not change."""
TTL_S = 7 * 86_400.0
"""Time after which `GET /prompt/<id>` forgets a prompt. Its run stays."""
TARGET_HEADER = "Comfyui-Target"
LONGEST_ID = 200
WEBHOOK_FIELDS = ("webhook", "webhook_v2")

Body = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class PromptSource:
    """What made the prompt, and the values that it sets in a file of the editor."""

    name: str = "prompt"
    """Name of the run."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """By `<node id or title>.<input>`."""
    files: tuple[str, ...] = ()
    """Those of the values that are input files: base64, URLs or names."""


CLIENT = PromptSource()


@dataclass(frozen=True, kw_only=True)
class PromptReader:
    orders: OrderReader
    uploads: Uploads
    urls: UrlInputs
    download_rules: DownloadRules
    check_webhook: Callable[[str], None]
    """Raises: UrlRefused."""
    default_target: str
    prepends: bool
    """True: the id is put before each `filename_prefix`. False: it replaces the prefix."""

    def read(self, body: Body, target: str | None, source: PromptSource = CLIENT) -> JobOrder:
        """Returns the order of the job. Stores inline images on this server. Raises: InvalidBody,
        InvalidPart, InvalidRequest, StoreError."""
        began_s = time.monotonic()
        prompt, prompt_id = _checked(body)
        conversion, webhooks = _conversion(body), self._webhooks(body)
        upload, credentials = _upload(body), _credentials(body)
        media = PromptMedia(uploads=self.uploads, check_url=self.urls.storages.check)
        models = PromptModels(rules=self.download_rules)
        graph = prompt if is_editor_format(prompt) else self._read_nodes(prompt, prompt_id, media, models)
        order = {"ssh_connection": target or self.default_target, "workflow": graph}
        request, api_key = self._run_request({**order, **_source_fields(source, media)})
        urls = {**media.secret_urls, **models.secret_urls, **upload.urls}
        secrets = RequestSecrets(credentials=credentials, urls=urls)
        self._check_addresses(upload.target, secrets)
        request = replace(
            request,
            convert=conversion,
            input_images=tuple(media.paths.values()),
            downloads=tuple(media.downloads),
            provision=bool(models.locations),
            upload=upload.target,
            secrets=secrets,
        )
        return JobOrder(
            request=request,
            comfy_org_api_key=api_key,
            endpoint=request.ssh_connection,
            presenter=NAME,
            webhooks=tuple(dict.fromkeys(webhooks.values())),
            ttl_s=TTL_S,
            client_id=prompt_id,
            is_delivered_here=True,
            details={
                "echo": _echo(body, conversion, upload),
                "media": media.locations,
                "models": models.locations,
                "preprocess_ms": round((time.monotonic() - began_s) * 1000),
            },
        )

    def _run_request(self, order: Body) -> tuple[RunRequest, str | None]:
        """Returns the request with defaults, and the API key of Comfy.org. Raises: InvalidPart."""
        try:
            return self.orders.read_with_key(order)
        except InvalidGraph as error:
            raise InvalidPart(str(error), "prompt") from error

    def _check_addresses(self, target: UploadTarget | None, secrets: RequestSecrets) -> None:
        """Raises: InvalidPart."""
        try:
            self.urls.check(target, secrets)
        except UrlRefused as error:
            raise InvalidPart(str(error), target.kind.value if target else "credentials") from error

    def _webhooks(self, body: Body) -> dict[str, str]:
        """Returns the URLs by their fields. Raises: InvalidPart."""
        found = {name: body[name] for name in WEBHOOK_FIELDS if body.get(name)}
        for name, url in found.items():
            try:
                self.check_webhook(url)
            except UrlRefused as error:
                raise InvalidPart(f"{name}: {error}", name) from error
        return found

    def _read_nodes(self, prompt: Body, prompt_id: str, media: PromptMedia, models: PromptModels) -> Body:
        """Returns the prompt with unique names of outputs, with names in place of input files, and without
        secrets in the URLs of models. Raises: InvalidPart; StoreError."""
        graph, saves = copy.deepcopy(prompt), False
        for node_id, node in graph.items():
            inputs = node["inputs"] = node.get("inputs", {})
            if not isinstance(inputs, dict):
                raise InvalidPart(f"Node {node_id} has no inputs", f"prompt.{node_id}.inputs")
            prefix = inputs.get("filename_prefix")
            if isinstance(prefix, str) and prefix:
                inputs["filename_prefix"] = self._prefix(prompt_id, prefix)
                saves = saves or bool(inputs.get("save_output", True))
            media.read_node(node_id, node)
            models.read_node(node_id, node)
        if not saves:
            raise InvalidPart(NO_SAVE_NODE, "prompt")
        return graph

    def _prefix(self, prompt_id: str, prefix: str) -> str:
        """An id may have any letters; a file name may not."""
        safe_id = re.sub(r"[^\w.-]", "_", prompt_id).lstrip(".") or "_"
        return f"{safe_id}_{prefix}" if self.prepends else safe_id


def prompt_reader(services: ApiServices) -> PromptReader:
    settings = services.settings
    return PromptReader(
        orders=order_reader(services, may_lack_instances=True),
        uploads=services.uploads,
        urls=services.urls,
        download_rules=services.models.rules,
        check_webhook=services.outbox.check,
        default_target=settings.comfyui_api_target,
        prepends=settings.comfyui_api_prepend_filenames,
    )


def _source_fields(source: PromptSource, media: PromptMedia) -> Body:
    """Returns the fields of the order from the source, with names in place of input files.
    Raises: InvalidPart, StoreError."""
    inputs = {
        name: media.read_parameter(value) if value in source.files else value
        for name, value in source.values.items()
    }
    return {"workflow_name": source.name, "inputs": inputs}


def _checked(body: Body) -> tuple[Body, str]:
    """Returns the prompt and its id: the one of the body, or a new one. Raises: InvalidBody, InvalidPart."""
    prompt, prompt_id = body.get("prompt"), body.get("id", str(uuid.uuid4()))
    texts = [prompt_id, *(body[name] for name in WEBHOOK_FIELDS if name in body)]
    if not isinstance(prompt, dict):
        raise InvalidBody("prompt must be an object")
    if not all(isinstance(each, str) for each in texts):
        raise InvalidBody("id, webhook and webhook_v2 must be texts")
    if not is_editor_format(prompt) and not all(map(_is_node, prompt.values())):
        raise InvalidBody("each node of the prompt must be an object with a class_type")
    if not prompt_id or len(prompt_id) > LONGEST_ID or not is_valid_unicode(prompt_id):
        raise InvalidPart(f"id must be a text of 1 to {LONGEST_ID} characters", "id")
    return prompt, prompt_id


def _upload(body: Body) -> ReadUpload:
    """Reads where the outputs go: the first field that is present. `webhook` gets them itself, so with it
    they are uploaded nowhere, as by comfyui-api. Raises: InvalidBody."""
    if body.get("webhook"):
        return ReadUpload()
    try:
        return read_upload(body, by_run=False)
    except InvalidRequest as error:
        raise InvalidBody(str(error)) from error


def _credentials(body: Body) -> tuple[Credential, ...]:
    """Raises: InvalidBody."""
    try:
        return read_credentials(body.get("credentials"))
    except InvalidRequest as error:
        raise InvalidBody(str(error)) from error


def _is_node(node: object) -> bool:
    return isinstance(node, dict) and isinstance(node.get("class_type"), str)


def _conversion(body: Body) -> ImageConversion | None:
    """Raises: InvalidBody for an unknown format, as comfyui-api; InvalidPart for an option."""
    given = body.get("convert_output")
    if "convert_output" not in body:
        return None
    if not isinstance(given, dict) or given.get("format") not in FORMATS:
        raise InvalidBody("convert_output must be an object with a format: jpeg, jpg or webp")
    try:
        return read_conversion(given)
    except InvalidConversion as error:
        location = f"convert_output.{error.location}" if error.location else "convert_output"
        raise InvalidPart(f"convert_output.{error}", location) from error


def _echo(body: Mapping[str, Any], conversion: ImageConversion | None, upload: ReadUpload) -> Body:
    """Returns the fields that the answers repeat, with the defaults of comfyui-api, and without secrets."""
    echo = {name: body[name] for name in WEBHOOK_FIELDS if name in body}
    if conversion is not None:
        options = {"options": conversion.all_options} if conversion.options else {}
        echo["convert_output"] = {"format": conversion.format, **options}
    if body.get("credentials"):
        echo["credentials"] = [
            {"url_pattern": without_secrets(each["url_pattern"]), "auth": {"type": each["auth"]["type"]}}
            for each in body["credentials"]
        ]
    if upload.target is not None:
        echo[upload.target.kind.value] = _upload_echo(upload.target)
    return echo


def _upload_echo(target: UploadTarget) -> Body:
    is_async = {"async": bool(target.is_async)}
    match target.kind:
        case UploadKind.S3:
            return {"bucket": target.place, "prefix": target.prefix, **is_async}
        case UploadKind.HUGGING_FACE:
            names = {"repo": target.place, "repo_type": target.repo_type, "revision": target.revision}
            return {**names, "directory": target.prefix or "/", **is_async}
        case UploadKind.AZURE:
            return {"container": target.place, "blob_prefix": target.prefix, **is_async}
        case UploadKind.HTTP:
            return {"url_prefix": target.place, **is_async}
