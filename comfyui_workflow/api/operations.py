"""Routes as a table: how each is registered with Flask, and what the OpenAPI document says of it.

A table is read twice, by `register` and by `openapi`, so that no route is there without its description.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from flask import Blueprint, Response
from pydantic import BaseModel, ConfigDict


def _without_additional_properties(schema: dict[str, Any]) -> None:
    schema.pop("additionalProperties", None)


class ResponseBody(BaseModel):
    """The body of a response. A test holds that it has these fields and no others; a later release may add
    some, so the document does not exclude them."""

    model_config = ConfigDict(
        extra="forbid", defer_build=True, json_schema_extra=_without_additional_properties
    )


class RequestBody(BaseModel):
    """The body or the query of a request. It documents what the readers read: docs/decisions/0011."""

    model_config = ConfigDict(extra="ignore", defer_build=True)


@dataclass(frozen=True, kw_only=True)
class Operation:
    method: str
    rule: str
    """Flask's rule, from the root: `/comfyui/workflow/<workflow_id>/progress`."""
    view: Callable[..., Response]
    """A method of the class of views that `register` gets an object of."""
    summary: str
    answer: type[BaseModel] | str
    """The model of a JSON body, or the media type of another one."""
    status: int = 200
    body: type[BaseModel] | None = None
    body_type: str = "application/json"
    upload: str | None = None
    """The field of a multipart form that has the file."""
    is_body_optional: bool = False
    query: type[BaseModel] | None = None
    bare_rule: str | None = None
    """A second place, where the first variable of the rule is not given: the view gets None."""

    @property
    def rules(self) -> tuple[str, ...]:
        return (self.rule,) if self.bare_rule is None else (self.rule, self.bare_rule)


@dataclass(frozen=True, kw_only=True)
class Section:
    """The operations under one tag of the OpenAPI document."""

    tag: str
    description: str
    operations: tuple[Operation, ...]
    failure: type[BaseModel] | None = None
    """The body of every error; None where errors are pages."""
    has_etags: bool = True
    is_open: bool = False
    """Whether it needs no API token."""


def register(routes: Blueprint, operations: Iterable[Operation], views: object) -> None:
    for operation in operations:
        name = operation.view.__name__
        view = partial(operation.view, views)
        _add(routes, operation, operation.rule, name, view)
        if operation.bare_rule is not None:
            variable = variables_of(operation.rule)[0]
            _add(routes, operation, operation.bare_rule, f"bare_{name}", partial(view, **{variable: None}))


def variables_of(rule: str) -> list[str]:
    """Their names, in order."""
    return re.findall(r"<(?:\w+:)?(\w+)>", rule)


def _add(
    routes: Blueprint, operation: Operation, rule: str, name: str, view: Callable[..., Response]
) -> None:
    endpoint = f"{operation.method.lower()}_{name}"
    routes.add_url_rule(rule, endpoint, view, methods=[operation.method])
