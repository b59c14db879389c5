"""Parses the field `webhook` of `execute` and `batch`: a URL, or `{"url": …, "events": […]}`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flask import has_request_context, request

from comfyui_workflow.errors import InvalidRequest, UrlRefused
from comfyui_workflow.parsing.fields import refuse_unknown_fields
from comfyui_workflow.runs.notification import NotifiedEvent, WebhookOrder

_FORM = 'webhook must be a URL, or {"url": "https://…", "events": ["run.completed", …]}'


def read_webhook(
    body: Mapping[str, Any],
    allowed: Sequence[NotifiedEvent],
    default: Sequence[NotifiedEvent],
    *,
    check_url: Callable[[str], None],
    server_url: str | None,
) -> WebhookOrder | None:
    """Returns the webhook of a body; None without one. `allowed` and `default` are events. `server_url`:
    the URL in the settings; without it, that of the current request.

    Raises: InvalidRequest; UrlRefused for a URL that may not be requested."""
    given = body.get("webhook")
    if given is None:
        return None
    fields = {"url": given} if isinstance(given, str) else given
    if not isinstance(fields, dict):
        raise InvalidRequest(_FORM)
    refuse_unknown_fields(fields, ("url", "events"), "webhook")
    url = fields.get("url")
    if not isinstance(url, str) or not url:
        raise InvalidRequest(_FORM)
    try:
        check_url(url)
    except UrlRefused as error:
        raise UrlRefused(f"webhook: {error}") from error
    events = _events(fields.get("events"), allowed, default)
    return WebhookOrder(url=url, events=events, server_url=_server_url(server_url))


def _events(
    given: object, allowed: Sequence[NotifiedEvent], default: Sequence[NotifiedEvent]
) -> tuple[NotifiedEvent, ...]:
    if given is None:
        return tuple(default)
    names = ", ".join(allowed)
    if not isinstance(given, list) or not given or not all(each in tuple(allowed) for each in given):
        raise InvalidRequest(f"webhook.events must be a list of {names}")
    return tuple(event for event in allowed if event in given)


def _server_url(configured: str | None) -> str:
    url = configured or (request.host_url if has_request_context() else "")
    return url.rstrip("/")
