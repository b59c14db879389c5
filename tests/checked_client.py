"""A test client that holds each answer of a route against its schema in the OpenAPI document."""

from functools import cache
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from pydantic import BaseModel
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse

from comfyui_workflow.api.operations import Operation, Section
from comfyui_workflow.app import SECTIONS


def checked(app: Flask) -> FlaskClient:
    app.test_client_class = CheckedClient
    return app.test_client()


class CheckedClient(FlaskClient):
    def open(self, *arguments: Any, **options: Any) -> TestResponse:
        answer = super().open(*arguments, **options)
        if not answer.is_streamed or answer.is_json:
            self._check(answer)
        return answer

    def _check(self, answer: TestResponse) -> None:
        found = self._operation(answer)
        if found is None or answer.request.method == "HEAD":
            return
        section, operation = found
        model = section.failure if answer.status_code >= 400 else operation.answer
        if answer.status_code >= 400 or answer.status_code == operation.status:
            check_answer(model, answer)

    def _operation(self, answer: TestResponse) -> tuple[Section, Operation] | None:
        routes = self.application.url_map.bind("localhost")
        try:
            rule, _ = routes.match(answer.request.path, answer.request.method, return_rule=True)
        except HTTPException:
            return None
        method = "GET" if answer.request.method == "HEAD" else answer.request.method
        return operations().get((rule.rule, method))


def check_answer(model: type[BaseModel] | str | None, answer: TestResponse) -> None:
    if isinstance(model, str):
        assert not model.startswith(("application/", "text/")) or answer.mimetype == model
    elif model is not None:
        assert answer.mimetype == "application/json"
        model.model_validate_json(answer.get_data(), strict=True)


@cache
def operations() -> dict[tuple[str, str], tuple[Section, Operation]]:
    """By Flask's rule and the method."""
    return {
        (rule, operation.method): (section, operation)
        for section in SECTIONS
        for operation in section.operations
        for rule in operation.rules
    }
