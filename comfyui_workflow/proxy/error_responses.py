"""The answers that a local port gives by itself, in the shape of ComfyUI's own refusals."""

from typing import Any

from aiohttp import web

from comfyui_workflow.errors import ComfyUIUnavailable

RETRY_AFTER_S = 5


class InstanceUnreachable(ComfyUIUnavailable):
    """The instance cannot be reached, and nothing was sent to it."""


class AnswerLost(ComfyUIUnavailable):
    """The request was sent, and nobody knows what became of it."""


def away(error: InstanceUnreachable) -> web.Response:
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    return web.json_response(_body("instance_unreachable", str(error)), status=503, headers=headers)


def answer_lost(error: AnswerLost) -> web.Response:
    """No Retry-After: it is not for a library to send it again."""
    return web.json_response(_body("answer_lost", str(error)), status=502)


def refused(message: str, status: int = 403) -> web.Response:
    return web.json_response(_body("refused", message), status=status)


def _body(kind: str, message: str) -> dict[str, Any]:
    error = {"type": kind, "message": message, "details": "", "extra_info": {}}
    return {"error": error, "node_errors": {}}
