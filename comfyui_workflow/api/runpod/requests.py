"""Parses the body of a job: `{"input": {"workflow", "images"}, "webhook", "policy", "s3Config"}`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

from comfyui_workflow.api.mount import ApiServices
from comfyui_workflow.api.request import flag, integer, text
from comfyui_workflow.api.run_requests import OrderReader, order_reader
from comfyui_workflow.api.runpod.documents import INVALID, NO_IMAGES
from comfyui_workflow.api.runpod.misspellings import refuse_misspelled_body
from comfyui_workflow.api.runpod.presenter import NAME
from comfyui_workflow.errors import FileRefused, InstanceNotFound, InvalidGraph, InvalidRequest
from comfyui_workflow.parsing.base64_text import decoded_base64
from comfyui_workflow.parsing.storage_urls import is_storage_url
from comfyui_workflow.parsing.untrusted import as_object, is_safe_name
from comfyui_workflow.runs.job import USUAL_TTL_S, Bucket, ImageDownload, JobOrder
from comfyui_workflow.runs.model import RunRequest
from comfyui_workflow.runs.target import ANY
from comfyui_workflow.runs.upload_target import check_storage_url
from comfyui_workflow.scheduling.capacity import Registry
from comfyui_workflow.services.uploads import Uploads

LOW_PRIORITY = -100
LEAST_TIMEOUT_MS = 1
"""RunPod's documentation says 5000; the example in the README of its JavaScript client uses 3000."""
LEAST_TTL_MS = 10_000
USUAL_TTL_MS = int(1000 * USUAL_TTL_S)
LONGEST_MS = 7 * 86_400_000
LONGEST_URL = 4096
LONGEST_OBJECT_PATH = 512

Body = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """The target of a job. `key` is the normalized name, which is the same for every spelling of the
    endpoint."""

    key: str
    ssh_connection: str


@dataclass(frozen=True, kw_only=True)
class Content:
    """The part of a job in `input`."""

    request: RunRequest
    fetches: tuple[ImageDownload, ...] = ()
    comfy_org_api_key: str | None = field(default=None, repr=False)
    refusal: str | None = None
    """Why it cannot be executed, in the words of worker-comfyui if it has some for the error."""


def job_order_reader(services: ApiServices) -> "JobOrderReader":
    return JobOrderReader(
        orders=order_reader(services, may_lack_instances=True),
        uploads=services.uploads,
        directory=services.instances.directory,
        default_endpoint=services.settings.default_endpoint,
    )


@dataclass(frozen=True, kw_only=True)
class JobOrderReader:
    """Parses job requests. Every method raises InvalidRequest for an error outside `input`."""

    orders: OrderReader
    uploads: Uploads
    directory: Registry
    default_endpoint: str

    def endpoint(self, endpoint_id: str | None) -> Endpoint:
        """Resolves an endpoint id: an instance, `any`, or a tag of an instance. Raises: InstanceNotFound."""
        if endpoint_id is None:
            return self._default()
        instance = self.directory.get(endpoint_id)
        if instance is not None:
            return Endpoint(key=instance.id, ssh_connection=instance.name)
        if endpoint_id.lower() == ANY:
            return Endpoint(key=ANY, ssh_connection=ANY)
        if any(each.has_tag(endpoint_id) for each in self.directory.all()):
            tagged = f"{ANY}:{endpoint_id.lower()}"
            return Endpoint(key=tagged, ssh_connection=tagged)
        raise InstanceNotFound(
            f"Endpoint not found: {endpoint_id[:100]} is neither an instance, nor a tag of one, nor {ANY}"
        )

    def _default(self) -> Endpoint:
        """Resolves the default endpoint, which may also be an ssh string."""
        try:
            return self.endpoint(self.default_endpoint)
        except InstanceNotFound:
            return Endpoint(key=self.default_endpoint, ssh_connection=self.default_endpoint)

    def read(self, body: Body, endpoint: Endpoint, *, is_sync: bool) -> JobOrder:
        """Parses the body and stores its inline images on this server. RunPod does not look into `input`: it
        accepts the job, and worker-comfyui fails it. So an error there becomes the refusal of the order."""
        refuse_misspelled_body(body, dict(as_object(body.get("input"))))
        policy = _object(body, "policy")
        timeout_ms = integer(policy, "executionTimeout", 0, LEAST_TIMEOUT_MS, LONGEST_MS)
        ttl_ms = integer(policy, "ttl", USUAL_TTL_MS, LEAST_TTL_MS, LONGEST_MS)
        webhooks = filter(None, (_url(body, "webhook"), _url(body, "webhookV2")))
        bucket = _bucket(body)
        priority = LOW_PRIORITY if flag(policy, "lowPriority") else 0
        content = self._content(body, {"ssh_connection": endpoint.ssh_connection, "priority": priority})
        return JobOrder(
            request=content.request,
            comfy_org_api_key=content.comfy_org_api_key,
            endpoint=endpoint.key,
            presenter=NAME,
            is_sync=is_sync,
            webhooks=tuple(dict.fromkeys(webhooks)),
            execution_timeout_s=timeout_ms / 1000 or None,
            ttl_s=ttl_ms / 1000,
            bucket=bucket,
            fetches=content.fetches,
            refusal=content.refusal,
        )

    def _content(self, body: Body, execute_body: Body) -> "Content":
        """Raises: InvalidRequest if `input` is missing, or if the endpoint is invalid."""
        if "input" not in body:
            raise InvalidRequest("Please provide input")
        try:
            return self._valid_content(_input(body), execute_body)
        except InvalidRequest as error:
            return Content(request=self.orders.read_without_workflow(execute_body), refusal=str(error))

    def _valid_content(self, given: Body, execute_body: Body) -> "Content":
        images = dict(_images(given))
        fetches = tuple(self._downloads(images))
        own = {name: given.get(name) for name in ("workflow", "comfy_org_api_key")}
        try:
            request, api_key = self.orders.read_with_key({**execute_body, **own})
        except InvalidGraph as error:
            raise InvalidRequest(f"{INVALID}: {error}") from error
        paths = (*self._stored_paths(images), *(each.path for each in fetches))
        return Content(
            request=replace(request, input_images=paths),
            fetches=fetches,
            comfy_org_api_key=api_key,
        )

    def _downloads(self, images: "Images") -> Iterator[ImageDownload]:
        for name, image in images.items():
            if isinstance(image, str):
                with _image_errors():
                    yield ImageDownload(url=image, path=str(self.uploads.path_for_upload(name)))

    def _stored_paths(self, images: "Images") -> Iterator[str]:
        for name, image in images.items():
            if isinstance(image, bytes):
                with _image_errors():
                    yield str(self.uploads.keep(BytesIO(image), name))


def _input(body: Body) -> Body:
    given = body.get("input")
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest("Invalid JSON format in input") from error
    if given is None:
        raise InvalidRequest("Please provide input")
    if not isinstance(given, dict):
        raise InvalidRequest('input must be an object: {"workflow": {...}}')
    if given.get("workflow") is None:
        raise InvalidRequest("Missing 'workflow' parameter")
    return given


@contextmanager
def _image_errors() -> Iterator[None]:
    """Converts FileRefused to the error of worker-comfyui for images."""
    try:
        yield
    except FileRefused as error:
        raise InvalidRequest(f"{NO_IMAGES}: {error}") from error


Images = dict[str, bytes | str]
"""Image content, or the URL of an image, by file name."""


def _images(given: Body) -> Iterator[tuple[str, bytes | str]]:
    """Yields name and content (or URL) of each image. If a name occurs twice, the later image replaces the
    earlier one, as in ComfyUI."""
    images = given.get("images")
    if images is None:
        return
    are_named = isinstance(images, list) and all(
        isinstance(as_object(each).get("name"), str) and isinstance(as_object(each).get("image"), str)
        for each in images
    )
    if not are_named:
        raise InvalidRequest("'images' must be a list of objects with 'name' and 'image' keys")
    for each in images:
        name = each["name"].replace("\\", "/")
        if not all(map(is_safe_name, name.split("/"))) or text(each, "name") != each["name"]:
            raise InvalidRequest(f"{NO_IMAGES}: this file name is not accepted: {name[:300]!r}")
        try:
            yield name, _image_url(each) or _content(each["image"])
        except InvalidRequest as error:
            raise InvalidRequest(f"{NO_IMAGES}: {name}: {error}") from error


def _image_url(image: Body) -> str | None:
    """Returns the URL of an image; None if it is no URL."""
    url: str = image["image"]
    if not is_storage_url(url[:8]):
        return None
    return _url(image, "image") if url[:4].lower() == "http" else check_storage_url(url)


def _content(image: str) -> bytes:
    try:
        content = decoded_base64(image)
    except ValueError as error:
        raise InvalidRequest(f"its content is not base64 ({error})") from error
    if not content:
        raise InvalidRequest("it is empty")
    return content


def _bucket(body: Body) -> Bucket | None:
    config = body.get("s3Config")
    if config is None:
        return None
    fields = _object(body, "s3Config")
    endpoint_url = _url(fields, "endpointUrl")
    access_id, secret = text(fields, "accessId"), text(fields, "accessSecret")
    if not (endpoint_url and access_id and secret):
        raise InvalidRequest("s3Config needs endpointUrl, accessId and accessSecret")
    return Bucket(
        endpoint_url=endpoint_url,
        access_key_id=access_id,
        secret_access_key=secret,
        bucket_name=text(fields, "bucketName") or None,
        object_path=_object_path(fields),
    )


def _object_path(fields: Body) -> str:
    """Returns the directory of the outputs in the bucket, without slashes at its ends."""
    path = "/".join(filter(None, (text(fields, "objectPath") or "").split("/")))
    if len(path) > LONGEST_OBJECT_PATH or not path.isprintable() or {".", ".."} & {*path.split("/")}:
        raise InvalidRequest(
            f"objectPath must be a directory in the bucket, of at most {LONGEST_OBJECT_PATH} printable "
            "characters, without . and .. in it"
        )
    return path


def _url(fields: Body, field: str) -> str | None:
    url = text(fields, field)
    if not url:
        return None
    try:
        is_web_url = urlsplit(url).scheme in ("http", "https") and bool(urlsplit(url).hostname)
    except ValueError:
        is_web_url = False
    if not is_web_url or len(url) > LONGEST_URL or not url.isprintable():
        raise InvalidRequest(f"{field} must be a URL that begins with http:// or https://")
    return url


def _object(fields: Body, field: str) -> Body:
    value = fields.get(field)
    if value is not None and not isinstance(value, dict):
        raise InvalidRequest(f"{field} must be an object")
    return value or {}
