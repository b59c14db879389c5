"""Requests to download a model: parsed, and their URLs separated from their secrets."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from comfyui_workflow.api.comfyui_api.errors import InvalidBody
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.parsing.fields import is_valid_unicode
from comfyui_workflow.provisioning.model_urls import plain_url, recorded_url
from comfyui_workflow.provisioning.rules import DownloadRules
from comfyui_workflow.runs.credentials import Credential, RequestSecrets, read_auth
from comfyui_workflow.services.model_downloads import ModelOrder
from comfyui_workflow.workflows.model_files import is_model
from comfyui_workflow.workflows.model_sources import is_safe_path, name_of_url


@dataclass(frozen=True, kw_only=True)
class DownloadRequest:
    order: ModelOrder
    is_awaited: bool

    @property
    def echo(self) -> dict[str, Any]:
        """Fields that both answers repeat."""
        url = self.order.url.partition("#")[0]
        return {"url": url, "model_type": self.order.folder, "filename": self.order.name}


def read_download(body: dict[str, Any], rules: DownloadRules) -> DownloadRequest:
    """Parses the body of `POST /download`. Raises: InvalidBody, InvalidRequest."""
    texts = [body.get("url"), body.get("model_type"), body.get("filename", "")]
    is_awaited = body.get("wait", False)
    if not all(isinstance(each, str) for each in texts) or not isinstance(is_awaited, bool):
        raise InvalidBody("url, model_type and filename must be texts; wait must be true or false")
    if not all(map(is_valid_unicode, texts)):
        raise InvalidBody("url, model_type and filename must be valid Unicode")
    whole = plain_url(texts[0])
    url = recorded_url(whole)
    name = texts[2] or _usual_name(url)
    if not is_safe_path(name):
        raise InvalidRequest("filename must be a name below the folder of the models, and not a hidden one")
    refusal = rules.refusal(url, name)
    if refusal is not None:
        raise InvalidRequest(f"{name} is not downloaded: {refusal}")
    secrets = RequestSecrets(credentials=_credentials(body), urls={url: whole} if url != whole else {})
    rules.signed(url, secrets)
    order = ModelOrder(url=url, folder=texts[1], name=name, secrets=secrets)
    return DownloadRequest(order=order, is_awaited=is_awaited)


def _usual_name(url: str) -> str:
    """Returns the name in the URL, as comfyui-api; a name with a hash of the URL if that is no model file."""
    last = PurePosixPath(unquote(urlsplit(url).path)).name
    return last if is_model(last) else name_of_url(url)


def _credentials(body: dict[str, Any]) -> tuple[Credential, ...]:
    """Raises: InvalidBody."""
    if "auth" not in body:
        return ()
    try:
        return (Credential(url_pattern="**", auth=read_auth(body["auth"])),)
    except InvalidRequest as error:
        raise InvalidBody(str(error)) from error
