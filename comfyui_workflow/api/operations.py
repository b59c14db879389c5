"""Tables of routes, which both Flask and the OpenAPI document read.

How it works: an `Operation` has the method, the path, the view, the schemas and the description of one route.
`register` adds it to Flask and `openapi` writes it into the document, so no route can lack a description.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flask import Blueprint, Response
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema

from comfyui_workflow.api.field_docstrings import describe_fields


def _without_additional_properties(schema: dict[str, Any]) -> None:
    schema.pop("additionalProperties", None)


class _Schema(BaseModel):
    """A model whose core schema is built when it is first needed. Docstrings of fields become descriptions in
    the document."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        describe_fields(cls)
        return handler(source)


class ResponseBody(_Schema):
    """The body of a response.

    The tests accept no other fields. A later release may add some, so the document does not exclude them.
    """

    model_config = ConfigDict(json_schema_extra=_without_additional_properties)


class RequestBody(_Schema):
    """The body or the query of a request, for the document, and for the names of its fields. Values are
    parsed by other code (docs/decisions/0011-schemas-beside-readers.md)."""


class OpenRequestBody(RequestBody):
    """A body or query that may have other fields too: those of an API that ignores them."""

    model_config = ConfigDict(extra="ignore")


@dataclass(frozen=True, kw_only=True)
class Operation:
    method: str
    rule: str
    """The full Flask rule: `/comfyui/workflow/<workflow_id>/progress`."""
    view: Callable[..., Response]
    """An unbound method; `register` binds it to its `views`."""
    summary: str
    """One line, without a period."""
    description: str = ""
    """Markdown: behaviour, limits and errors that the summary does not say."""
    answer: type[BaseModel] | str
    """The model of a JSON body, or the media type of another body; empty for no body."""
    status: int = 200
    body: type[BaseModel] | None = None
    body_type: str = "application/json"
    upload: str | None = None
    """The name of the form field with the file, for multipart requests."""
    is_body_optional: bool = False
    query: type[BaseModel] | None = None
    other_rules: tuple[str, ...] = ()
    """Rules of the same operation at other paths, with the same variables. The document does not list
    them."""
    has_bare_rule: bool = False
    """Adds a second rule without all up to the first variable, for which the view gets None."""

    @property
    def bare_rule(self) -> str | None:
        return self.rule.partition(">")[2] if self.has_bare_rule else None

    @property
    def described_rules(self) -> tuple[str, ...]:
        """The rules in the document."""
        return (self.rule,) if self.bare_rule is None else (self.rule, self.bare_rule)

    @property
    def rules(self) -> tuple[str, ...]:
        return (*self.described_rules, *self.other_rules)


@dataclass(frozen=True, kw_only=True)
class Section:
    """The operations under one tag of the OpenAPI document."""

    tag: str
    description: str
    operations: tuple[Operation, ...]
    failure: type[BaseModel] | None = None
    """The model of every error body; None if errors are HTML pages."""
    has_etags: bool = True
    is_open: bool = False
    """True if the routes need no API token."""
    path_parameters: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Descriptions of the variables in paths, by name."""


Check = Callable[[Operation], None]


def register(
    routes: Blueprint, operations: Iterable[Operation], views: object, check: Check | None = None
) -> None:
    """Adds the routes. `check` is called before the view of each request."""
    for operation in operations:
        name = operation.view.__name__
        view = partial(operation.view, views)
        if check is not None:
            view = partial(_checked_view, partial(check, operation), view)
        for number, rule in enumerate((operation.rule, *operation.other_rules)):
            _add(routes, operation, rule, f"{name}_{number}" if number else name, view)
        if operation.bare_rule is not None:
            variable = variables_of(operation.rule)[0]
            _add(routes, operation, operation.bare_rule, f"bare_{name}", partial(view, **{variable: None}))


def variables_of(rule: str) -> list[str]:
    """Returns the names of the variables of a rule, in order."""
    return re.findall(r"<(?:\w+:)?(\w+)>", rule)


def _checked_view(check: Callable[[], None], view: Callable[..., Response], **variables: Any) -> Response:
    check()
    return view(**variables)


def _add(
    routes: Blueprint, operation: Operation, rule: str, name: str, view: Callable[..., Response]
) -> None:
    endpoint = f"{operation.method.lower()}_{name}"
    routes.add_url_rule(rule, endpoint, view, methods=[operation.method])
