"""GET /health: whether the server is there. Needs no token and tells nothing of the runs but their number."""

from flask import Blueprint, Response, jsonify

from comfyui_workflow import __version__
from comfyui_workflow.api.mount import Parts

PATH = "/health"


def create_blueprint(parts: Parts) -> Blueprint:
    routes = Blueprint("health", __name__)

    @routes.get(PATH)
    def health() -> Response:
        return jsonify(
            status="ok",
            version=__version__,
            unfinished_runs=parts.service.unfinished_count(),
            damaged_records=len(parts.damage.all()),
        )

    return routes
