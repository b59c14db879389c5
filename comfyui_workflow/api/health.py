"""GET /health: whether the server is there. Needs no token and tells nothing of the runs but their number."""

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
    damaged_records: int


@dataclass(frozen=True, kw_only=True)
class HealthViews:
    parts: ApiServices

    def health(self) -> Response:
        return jsonify(
            status="ok",
            version=__version__,
            unfinished_runs=self.parts.service.unfinished_count(),
            damaged_records=len(self.parts.damage.all()),
        )


def create_blueprint(parts: ApiServices) -> Blueprint:
    routes = Blueprint("health", __name__)
    register(routes, SECTION.operations, HealthViews(parts=parts))
    return routes


SECTION = Section(
    tag="Health",
    description="Whether the server is there",
    operations=(
        Operation(
            method="GET",
            rule=PATH,
            view=HealthViews.health,
            summary="Whether the server is there",
            answer=Health,
        ),
    ),
    has_etags=False,
    is_open=True,
)
