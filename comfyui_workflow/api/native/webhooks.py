"""/comfyui/webhooks: delivery status of webhooks, and sending one again."""

from dataclasses import dataclass

from flask import Blueprint, Response, jsonify, request

from comfyui_workflow.api.error_responses import error_response, http_error_response
from comfyui_workflow.api.mount import Api, ApiServices
from comfyui_workflow.api.native import schemas
from comfyui_workflow.api.operations import Operation, Section, register
from comfyui_workflow.api.request import number, refuse_unknown_parts
from comfyui_workflow.delivery.webhooks.sender import Outbox
from comfyui_workflow.delivery.webhooks.serializers import attempt_document, delivery_document

PREFIX = "/comfyui/webhooks"


@dataclass(frozen=True, kw_only=True)
class WebhookViews:
    outbox: Outbox

    def list_webhooks(self) -> Response:
        limit = number(request.args.get("limit", "20"), "limit", 1, schemas.LARGEST_WEBHOOK_PAGE)
        found = self.outbox.deliveries(limit, request.args.get("before"), request.args.get("workflow_id"))
        return jsonify(
            success=True,
            webhooks=[delivery_document(each) for each in found],
            next=found[-1].delivery_id if len(found) == limit else None,
        )

    def show(self, webhook_id: str) -> Response:
        found = self.outbox.get(webhook_id)
        attempts = [attempt_document(each) for each in found.attempts]
        return jsonify(success=True, webhook={**delivery_document(found), "attempts": attempts})

    def resend(self, webhook_id: str) -> Response:
        found = self.outbox.resend(webhook_id)
        return jsonify(success=True, webhook=delivery_document(found), message="The webhook is sent again")


def create_blueprint(services: ApiServices) -> Blueprint:
    routes = Blueprint("webhooks", __name__)
    register(routes, OPERATIONS, WebhookViews(outbox=services.outbox), refuse_unknown_parts)
    return routes


OPERATIONS = (
    Operation(
        method="GET",
        rule=PREFIX,
        view=WebhookViews.list_webhooks,
        summary="List webhooks, newest first",
        query=schemas.WebhookQuery,
        answer=schemas.WebhooksResponse,
    ),
    Operation(
        method="GET",
        rule=f"{PREFIX}/<webhook_id>",
        view=WebhookViews.show,
        summary="Get a webhook and its delivery attempts",
        description="Errors: 404 `webhook_not_found`.",
        answer=schemas.WebhookResponse,
    ),
    Operation(
        method="POST",
        rule=f"{PREFIX}/<webhook_id>/resend",
        view=WebhookViews.resend,
        summary="Send a webhook again",
        description="Sends at once and restarts the retry schedule. Errors: 404 `webhook_not_found`, 409 the "
        "webhook is being sent.",
        answer=schemas.WebhookResent,
    ),
)

API = Api(
    prefix=PREFIX,
    create_blueprint=create_blueprint,
    error_response=error_response,
    http_error_response=http_error_response,
    section=Section(
        tag="Webhooks",
        description="Delivery of webhooks. Details: docs/api/webhooks.md",
        operations=OPERATIONS,
        failure=schemas.Failure,
        path_parameters={"webhook_id": "Id of the webhook"},
    ),
)
