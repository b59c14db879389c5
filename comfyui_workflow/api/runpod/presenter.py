"""Bodies of job webhooks in RunPod's format: one message with the output."""

from collections.abc import Iterator
from datetime import datetime

from comfyui_workflow.api.runpod.documents import document_head
from comfyui_workflow.api.runpod.output import inline_output
from comfyui_workflow.services.jobs.presenter import WebhookMessage
from comfyui_workflow.services.jobs.view import JobView, has_output, output_of

NAME = "runpod"
"""Stored in the records of jobs; it must not change."""
LARGEST_MESSAGE_BYTES = 20 * 1024 * 1024
"""Maximum total size of the files in a webhook; also the maximum result size of RunPod."""


class RunPodPresenter:
    """Implements `services.jobs.presenter.Presenter`."""

    def webhook_messages(self, view: JobView, at: datetime) -> Iterator[WebhookMessage]:
        body = document_head(view, at)
        if has_output(view):
            body["output"] = inline_output(output_of(view), LARGEST_MESSAGE_BYTES)
        for url in view.job.webhooks:
            yield WebhookMessage(url=url, body=body)
