"""Parses the body of `POST /prompt` into the order of a job, as comfyui-api does: schema first, then each
node of the prompt."""

import copy
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from comfyui_workflow.api.comfyui_api.errors import NO_SAVE_NODE, InvalidBody, InvalidPart
from comfyui_workflow.api.comfyui_api.media import PromptMedia
from comfyui_workflow.api.mount import ApiServices
from comfyui_workflow.api.run_requests import OrderReader, order_reader
from comfyui_workflow.errors import InvalidGraph, InvalidRequest, UrlRefused
from comfyui_workflow.parsing.fields import is_valid_unicode
from comfyui_workflow.runs.image_conversion import (
    FORMATS,
    ImageConversion,
    InvalidConversion,
    read_conversion,
)
from comfyui_workflow.runs.job import JobOrder
from comfyui_workflow.services.uploads import Uploads
from comfyui_workflow.workflows.editor.file import is_editor_format

NAME = "comfyui-api"
"""Name of the presenter. Stored in the records of jobs; it must not change."""
TTL_S = 7 * 86_400.0
"""Time after which `GET /prompt/<id>` forgets a prompt. Its run stays."""
TARGET_HEADER = "Comfyui-Target"
LONGEST_ID = 200
UPLOAD_FIELDS = ("s3", "hf_upload", "azure_blob_upload", "http_upload")
WEBHOOK_FIELDS = ("webhook", "webhook_v2")
ECHOED = ("convert_output", *WEBHOOK_FIELDS)
"""Fields of the request, beside `id` and `prompt`, that the answers repeat."""

Body = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class PromptReader:
    orders: OrderReader
    uploads: Uploads
    check_url: Callable[[str], None]
    default_target: str
    prepends: bool
    """True: the id is put before each `filename_prefix`. False: it replaces the prefix."""

    def read(self, body: Body, target: str | None) -> JobOrder:
        """Returns the order of the job. Stores inline images on this server. Raises: InvalidBody,
        InvalidPart, InvalidRequest, StoreError."""
        began_s = time.monotonic()
        prompt, prompt_id = _checked(body)
        conversion = _conversion(body)
        webhooks = self._webhooks(body)
        media = PromptMedia(uploads=self.uploads, check_url=self.check_url)
        graph = prompt if is_editor_format(prompt) else self._read_nodes(prompt, prompt_id, media)
        order = self._execute_body(body, graph, target or self.default_target)
        try:
            request, api_key = self.orders.read_with_key(order)
        except InvalidGraph as error:
            raise InvalidPart(str(error), "prompt") from error
        return JobOrder(
            request=replace(request, convert=conversion, input_images=tuple(media.paths.values())),
            comfy_org_api_key=api_key,
            endpoint=request.ssh_connection,
            presenter=NAME,
            webhooks=tuple(dict.fromkeys(webhooks.values())),
            ttl_s=TTL_S,
            fetches=tuple(media.downloads),
            client_id=prompt_id,
            is_delivered_here=True,
            details={
                "echo": _echo(body, conversion),
                "media": media.locations,
                "preprocess_ms": round((time.monotonic() - began_s) * 1000),
            },
        )

    def _execute_body(self, body: Body, graph: object, target: str) -> Body:
        return {"ssh_connection": target, "workflow": graph, "workflow_name": "prompt"}

    def _webhooks(self, body: Body) -> dict[str, str]:
        """Returns the URLs by their fields. Raises: InvalidPart."""
        found = {name: body[name] for name in WEBHOOK_FIELDS if body.get(name)}
        for name, url in found.items():
            try:
                self.check_url(url)
            except UrlRefused as error:
                raise InvalidPart(f"{name}: {error}", name) from error
        return found

    def _read_nodes(self, prompt: Body, prompt_id: str, media: PromptMedia) -> Body:
        """Returns the prompt with unique names of outputs, and with names in place of input files. Raises:
        InvalidPart; StoreError."""
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
        check_url=services.outbox.check,
        default_target=settings.comfyui_api_target,
        prepends=settings.comfyui_api_prepend_filenames,
    )


def _checked(body: Body) -> tuple[Body, str]:
    """Returns the prompt and its id: the one of the body, or a new one. Raises: InvalidBody, InvalidPart."""
    prompt, prompt_id = body.get("prompt"), body.get("id", str(uuid.uuid4()))
    texts = [prompt_id, *(body[name] for name in WEBHOOK_FIELDS if name in body)]
    if not isinstance(prompt, dict) or not all(isinstance(each, str) for each in texts):
        raise InvalidBody("prompt must be an object; id, webhook and webhook_v2 must be texts")
    if not is_editor_format(prompt) and not all(map(_is_node, prompt.values())):
        raise InvalidBody("each node of the prompt must be an object with a class_type")
    if not prompt_id or len(prompt_id) > LONGEST_ID or not is_valid_unicode(prompt_id):
        raise InvalidPart(f"id must be a text of 1 to {LONGEST_ID} characters", "id")
    _refuse_uploads(body)
    return prompt, prompt_id


def _refuse_uploads(body: Body) -> None:
    given = next((name for name in (*UPLOAD_FIELDS, "credentials") if body.get(name) is not None), None)
    if given is not None:
        raise InvalidPart(f"{given} is not supported: this server returns the outputs itself", given)


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


def _echo(body: Mapping[str, Any], conversion: ImageConversion | None) -> Body:
    """Returns the fields that the answers repeat, with the defaults of comfyui-api."""
    echo = {name: body[name] for name in ECHOED if name in body}
    if conversion is not None and conversion.options:
        echo["convert_output"] = {"format": conversion.format, "options": conversion.all_options}
    return echo


__all__ = ["NAME", "TARGET_HEADER", "InvalidRequest", "PromptReader", "prompt_reader"]
