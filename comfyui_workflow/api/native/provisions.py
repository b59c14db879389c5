"""/comfyui/instances/<instance>/provision: puts on a machine what a manifest names."""

from dataclasses import dataclass
from typing import Any

from flask import Response, jsonify, request

from comfyui_workflow.api.native import schemas
from comfyui_workflow.api.operations import Operation
from comfyui_workflow.api.request import flag, json_body, number
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.instances.model import Instance, key_of_instance
from comfyui_workflow.instances.registry import InstanceRegistry
from comfyui_workflow.services.provisions import Provision, ProvisionService, read_order

MOST_LINES = 999_999_999


@dataclass(frozen=True, kw_only=True)
class ProvisionViews:
    """Routes of the manifest of an instance."""

    directory: InstanceRegistry
    provisions: ProvisionService

    def provision(self, instance: str) -> Response:
        body = json_body(schemas.ProvisionBody)
        found = self.directory.require(instance)
        if body.get("manifest") is None:
            raise InvalidRequest("manifest is required: an object, or its text in YAML or JSON")
        order, key = read_order(body["manifest"], body.get("credentials")), key_of_instance(found)
        if not flag(body, "dry_run"):
            started = self.provisions.start(found.id, key, order)
            message = f"The manifest is being applied to {found.name}"
            return jsonify(success=True, message=message, plan=None, **self._documents(found, started))
        plan = self.provisions.plan(found.id, key, order)
        return jsonify(
            success=True,
            message=f"Nothing was changed on {found.name}: this is a plan",
            plan={"items": [each.document() for each in plan.items], "restarts": plan.restarts},
            provision=None,
            lock=None,
        )

    def state(self, instance: str) -> Response:
        after = number(request.args.get("after", "0"), "after", 0, MOST_LINES)
        found = self.directory.require(instance)
        known = self.provisions.state(found.id)
        return jsonify(success=True, **self._documents(found, known, after))

    def cancel(self, instance: str) -> Response:
        found = self.directory.require(instance)
        if self.provisions.cancel(found.id):
            message = f"No more of the manifest is applied to {found.name}; what was done stays"
        else:
            message = f"No manifest is being applied to {found.name}"
        return jsonify(success=True, message=message)

    def _documents(self, instance: Instance, known: Provision | None, after: int = 0) -> dict[str, Any]:
        return {
            "provision": None if known is None else known.document(after),
            "lock": self.provisions.lock(instance.id),
        }


def operations(prefix: str) -> tuple[Operation, ...]:
    rule = f"{prefix}/<instance>/provision"
    return (
        Operation(
            method="POST",
            rule=rule,
            view=ProvisionViews.provision,
            summary="Apply a manifest to an instance, or plan it",
            description="Returns at once; `GET` of the same path tells what becomes of it. With `dry_run` it "
            "returns what would be done, and changes nothing. Errors: 400 invalid manifest; 404 "
            "`instance_not_found`; 409 another manifest is being applied there (`run_conflict`), or the plan "
            "fails (`provision_failed`); 502 instance or ComfyUI unreachable.",
            body=schemas.ProvisionBody,
            answer=schemas.ProvisionStarted,
        ),
        Operation(
            method="GET",
            rule=rule,
            view=ProvisionViews.state,
            summary="Get the last application of a manifest, its log, and the lock of the instance",
            description="Errors: 404 `instance_not_found`.",
            query=schemas.ProvisionQuery,
            answer=schemas.ProvisionResponse,
        ),
        Operation(
            method="DELETE",
            rule=rule,
            view=ProvisionViews.cancel,
            summary="Stop applying a manifest",
            description="What was done stays on the machine. Errors: 404 `instance_not_found`.",
            answer=schemas.Done,
        ),
    )
