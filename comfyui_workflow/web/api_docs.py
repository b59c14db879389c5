"""GET /docs: the OpenAPI document of all APIs, in Swagger UI, as JSON and as YAML. The page loads nothing
from other hosts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import as_file, files
from typing import Any

import yaml
from flask import Blueprint, Response, abort, jsonify, make_response, render_template, send_from_directory

from comfyui_workflow import __version__
from comfyui_workflow.api.native.schemas import Failure
from comfyui_workflow.api.openapi import openapi_document
from comfyui_workflow.api.operations import Operation, Section, register

PATH = "/docs"
ASSETS = frozenset({"swagger-ui-bundle.js", "swagger-ui.css"})
"""The files of Swagger UI that are served, from the package flask-swagger-ui."""
POLICY = (  # no require-trusted-types-for: Swagger UI does not support it, it writes markup
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, kw_only=True)
class DocsViews:
    sections: tuple[Section, ...]
    more_paths: Callable[[], dict[str, Any]]
    """Returns the paths that depend on files of the user."""

    @property
    def document(self) -> dict[str, Any]:
        constant = self._constant_document
        return {**constant, "paths": {**constant["paths"], **self.more_paths()}}

    @cached_property
    def _constant_document(self) -> dict[str, Any]:
        """Generated at the first request; the models are not built before (`defer_build`)."""
        return openapi_document(self.sections, __version__)

    def page(self) -> Response:
        response = make_response(render_template("docs.html"))
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Cache-Control"] = "no-store"
        return response

    def as_json(self) -> Response:
        return jsonify(self.document)

    def as_yaml(self) -> Response:
        return Response(yaml.safe_dump(self.document, sort_keys=False), mimetype="application/yaml")

    def asset(self, filename: str) -> Response:
        if filename not in ASSETS:
            abort(404, f"No such file of the documentation: {filename[:100]}")
        with as_file(files("flask_swagger_ui") / "dist") as directory:
            return send_from_directory(directory, filename)


def create_blueprint(
    sections: tuple[Section, ...],
    prefix: str = "",
    name: str = "docs",
    more_paths: Callable[[], dict[str, Any]] = dict,
) -> Blueprint:
    """Serves the document of the sections, with `more_paths`, below `prefix`."""
    routes = Blueprint(name, __name__)
    register(routes, section(prefix).operations, DocsViews(sections=sections, more_paths=more_paths))
    return routes


def section(prefix: str = "") -> Section:
    return Section(
        tag=f"Documentation at {prefix}{PATH}" if prefix else "Documentation",
        description="The OpenAPI document itself. Details: docs/api/openapi.md",
        operations=tuple(_operations(f"{prefix}{PATH}")),
        failure=Failure,
        has_etags=False,
    )


def _operations(path: str) -> Iterator[Operation]:
    yield Operation(
        method="GET",
        rule=path,
        view=DocsViews.page,
        summary="Show the document in Swagger UI",
        answer="text/html",
    )
    yield Operation(
        method="GET",
        rule=f"{path}/json",
        view=DocsViews.as_json,
        summary="Get the document as JSON",
        answer="application/json",
    )
    yield Operation(
        method="GET",
        rule=f"{path}/yaml",
        view=DocsViews.as_yaml,
        summary="Get the document as YAML",
        answer="application/yaml",
    )
    yield Operation(
        method="GET",
        rule=f"{path}/assets/<filename>",
        view=DocsViews.asset,
        summary="Get a file of Swagger UI",
        answer="*/*",
    )


SECTION = section()
