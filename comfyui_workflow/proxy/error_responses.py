"""Responses that a local port creates itself, in the JSON format of ComfyUI's refusals."""

from typing import Any

from aiohttp import web

from comfyui_workflow.errors import ComfyUIUnavailable

RETRY_AFTER_S = 5


class InstanceUnreachable(ComfyUIUnavailable):
    """The instance cannot be reached, and nothing was sent to it."""


class AnswerLost(ComfyUIUnavailable):
    """The request was sent, but the response was lost: it is not known if the request took effect."""


def unreachable_response(error: InstanceUnreachable) -> web.Response:
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    return web.json_response(_body("instance_unreachable", str(error)), status=503, headers=headers)


def answer_lost_response(error: AnswerLost) -> web.Response:
    """Without a Retry-After header, since HTTP libraries must not repeat this request automatically."""
    return web.json_response(_body("answer_lost", str(error)), status=502)


def refused_response(message: str, status: int = 403) -> web.Response:
    return web.json_response(_body("refused", message), status=status)


def _body(kind: str, message: str) -> dict[str, Any]:
    error = {"type": kind, "message": message, "details": "", "extra_info": {}}
    return {"error": error, "node_errors": {}}
