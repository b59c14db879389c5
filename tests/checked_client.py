"""Answers of the server, held against their schemas in the OpenAPI document: strictly, and no field besides.

checked(app)            a test client that does so with each answer
check_answer(…)         for an answer that came another way
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from pydantic import BaseModel
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.test import TestResponse

from comfyui_workflow.api.operations import Operation, Section
from comfyui_workflow.app import SECTIONS


def checked(app: Flask) -> FlaskClient:
    app.test_client_class = CheckedClient
    return app.test_client()


class CheckedClient(FlaskClient):
    def open(self, *arguments: Any, **options: Any) -> TestResponse:
        answer = super().open(*arguments, **options)
        asked = answer.request
        check_answer(asked.method, asked.path, answer.status_code, answer.mimetype, answer.get_data)
        return answer


def check_answer(
    method: str, path: str, status: int, media_type: str, content: Callable[[], bytes | str]
) -> None:
    """`content` is asked only for a JSON body."""
    try:
        found, _ = _routes().bind("localhost").match(path, method)
    except HTTPException:
        return
    section, operation = found
    if status >= 400:
        model: type[BaseModel] | str | None = section.failure
    elif status == operation.status and method != "HEAD":
        model = operation.answer
    else:
        return
    if isinstance(model, str):
        assert not model.startswith(("application/", "text/")) or media_type == model
    elif model is not None and method != "HEAD":
        assert media_type == "application/json"
        model.model_validate_json(content(), strict=True)


@cache
def _routes() -> Map:
    """Its endpoints are pairs of a section and an operation."""
    found: list[tuple[str, tuple[Section, Operation]]] = [
        (rule, (section, operation))
        for section in SECTIONS
        for operation in section.operations
        for rule in operation.rules
    ]
    return Map([Rule(rule, endpoint=pair, methods=[pair[1].method]) for rule, pair in found])
