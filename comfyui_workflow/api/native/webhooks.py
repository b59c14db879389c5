"""/comfyui/webhooks: what became of each webhook, and sending one again."""

from flask import Blueprint, Response, jsonify, request

from comfyui_workflow.api.error_responses import word_error, word_http_error
from comfyui_workflow.api.mount import Api, Parts
from comfyui_workflow.api.request import number
from comfyui_workflow.delivery.webhooks.serializers import attempt_document, delivery_document

PREFIX = "/comfyui/webhooks"
LARGEST_PAGE = 100


def create_blueprint(parts: Parts) -> Blueprint:
    routes = Blueprint("webhooks", __name__, url_prefix=PREFIX)
    outbox = parts.outbox

    @routes.get("")
    def some() -> Response:
        limit = number(request.args.get("limit", "20"), "limit", 1, LARGEST_PAGE)
        found = outbox.deliveries(limit, request.args.get("before"), request.args.get("workflow_id"))
        return jsonify(
            success=True,
            webhooks=[delivery_document(each) for each in found],
            next=found[-1].delivery_id if len(found) == limit else None,
        )

    @routes.get("/<webhook_id>")
    def one(webhook_id: str) -> Response:
        found = outbox.get(webhook_id)
        attempts = [attempt_document(each) for each in found.attempts]
        return jsonify(success=True, webhook={**delivery_document(found), "attempts": attempts})

    @routes.post("/<webhook_id>/resend")
    def resend(webhook_id: str) -> Response:
        found = outbox.resend(webhook_id)
        return jsonify(success=True, webhook=delivery_document(found), message="The webhook is sent again")

    return routes


API = Api(
    prefix=PREFIX,
    create_blueprint=create_blueprint,
    word_error=word_error,
    word_http_error=word_http_error,
)
