"""GET /health: a liveness check. Needs no token; of the runs it shows only the number."""

from dataclasses import dataclass
from typing import Literal

from flask import Blueprint, Response, jsonify

from comfyui_workflow import __version__
from comfyui_workflow.api.mount import ApiServices
from comfyui_workflow.api.operations import Operation, ResponseBody, Section, register

PATH = "/health"


class Health(ResponseBody):
    status: Literal["ok"]
    version: str
    unfinished_runs: int
    """Number of runs that wait or execute."""
    damaged_records: int
    """Number of records on disk that could not be read since the server was started."""


@dataclass(frozen=True, kw_only=True)
class HealthViews:
    services: ApiServices

    def health(self) -> Response:
        return jsonify(
            status="ok",
            version=__version__,
            unfinished_runs=self.services.service.unfinished_count(),
            damaged_records=len(self.services.damage.all()),
        )


def create_blueprint(services: ApiServices) -> Blueprint:
    routes = Blueprint("health", __name__)
    register(routes, SECTION.operations, HealthViews(services=services))
    return routes


SECTION = Section(
    tag="Health",
    description="Liveness of the server",
    operations=(
        Operation(
            method="GET",
            rule=PATH,
            view=HealthViews.health,
            summary="Check that the server is alive",
            description="Needs no API token.",
            answer=Health,
        ),
    ),
    has_etags=False,
    is_open=True,
)
