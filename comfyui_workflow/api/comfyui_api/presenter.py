"""Webhooks of prompts: `webhook` gets one message for each output, `webhook_v2` one signed message."""

import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from comfyui_workflow.api.comfyui_api.documents import failure_of, request_document, stats_document
from comfyui_workflow.delivery.webhooks.standard import event_body
from comfyui_workflow.runs.job import JobStatus
from comfyui_workflow.services.jobs.presenter import WebhookMessage
from comfyui_workflow.services.jobs.view import DeliveredFile, JobView, output_of

LARGEST_MESSAGE_BYTES = 100 * 1024 * 1024
"""Maximum total size of the files in a message, which is in memory as a whole."""


class ComfyUIApiPresenter:
    """Implements `services.jobs.presenter.Presenter`."""

    def webhook_messages(self, view: JobView, at: datetime) -> Iterator[WebhookMessage]:
        echo = view.job.details.get("echo", {})
        one_by_one, together = echo.get("webhook"), echo.get("webhook_v2")
        if view.status is not JobStatus.SUCCEEDED:
            yield _failed(view, at, one_by_one, together)
            return
        if one_by_one:
            yield from (_output(view, file, one_by_one) for file in output_of(view).files)
        if together:
            yield _signed(view, together, event_body("prompt.complete", at, complete_document(view)))


def complete_document(view: JobView) -> dict[str, Any]:
    """Returns the whole answer to a synchronous prompt, with its files, as far as they fit into a message."""
    files = output_of(view).files
    return {
        **request_document(view),
        **_images(view, files),
        "filenames": [file.filename for file in files],
        "stats": stats_document(view),
    }


def _images(view: JobView, files: Sequence[DeliveredFile]) -> dict[str, Any]:
    """Returns `images`, and `errors` if some of them are too large for a message: those are empty."""
    images, errors, left_bytes = list[str](), list[str](), LARGEST_MESSAGE_BYTES
    for file in files:
        size_bytes = file.path.stat().st_size if file.url is None and file.path.is_file() else 0
        if size_bytes > left_bytes:
            images.append("")
            errors.append(
                f"{file.filename} is too large to be sent along: GET /prompt/{view.job.client_id} has it"
            )
            continue
        left_bytes -= size_bytes
        images.append(image_of(file))
    return {"images": images, **({"errors": errors} if errors else {})}


def image_of(file: DeliveredFile) -> str:
    """Returns the URL of a file in a storage, otherwise its content as base64; empty if it is not there any
    more."""
    if file.url is not None:
        return file.url
    return b64encode(file.path.read_bytes()).decode() if file.path.is_file() else ""


def _failed(view: JobView, at: datetime, one_by_one: str | None, together: str | None) -> WebhookMessage:
    """`webhook_v2` has precedence if there are both, as in comfyui-api."""
    document = request_document(view)
    fields = {"id": document["id"], "prompt": document["prompt"], "error": failure_of(view)}
    if together:
        return _signed(view, together, event_body("prompt.failed", at, fields))
    return WebhookMessage(url=one_by_one or "", body={"event": "prompt.failed", **fields})


def _output(view: JobView, file: DeliveredFile, url: str) -> WebhookMessage:
    document, found = request_document(view), _images(view, [file])
    body = {
        "event": "output.complete",
        "image": found.pop("images")[0],
        **found,
        "id": document["id"],
        "filename": file.filename,
        "prompt": document["prompt"],
        "stats": stats_document(view),
    }
    return WebhookMessage(url=url, body=body)


def _signed(view: JobView, url: str, body: dict[str, Any]) -> WebhookMessage:
    """The id of the message is that of the prompt, if it may be in a header."""
    client_id = view.job.client_id or ""
    message_id = client_id if re.fullmatch("[!-~]+", client_id) else view.job.job_id
    return WebhookMessage(url=url, body=body, message_id=message_id)
