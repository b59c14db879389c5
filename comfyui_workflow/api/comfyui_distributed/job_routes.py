"""/distributed: messages between workers and a master with the plugin."""

from dataclasses import dataclass, field

from flask import Response, jsonify, request

from comfyui_workflow.api.comfyui_distributed import schemas
from comfyui_workflow.api.comfyui_distributed.bodies import body_of_request
from comfyui_workflow.api.comfyui_distributed.results import (
    PreparedJobs,
    check_picture,
    check_result,
    check_tile_request,
    check_tiles,
    prepared_id,
)
from comfyui_workflow.api.operations import Operation

HEAD_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class JobViews:
    prepared: PreparedJobs = field(default_factory=PreparedJobs)

    def queue_status(self, job_id: str) -> Response:
        return jsonify(exists=False, job_id=job_id)

    def job_status(self) -> Response:
        return jsonify(ready=False)

    def prepare_job(self) -> Response:
        self.prepared.add(prepared_id(body_of_request()))
        return jsonify(status="success")

    def job_complete(self) -> Response:
        self.prepared.require(check_result(body_of_request()))
        return jsonify(status="success")

    def heartbeat(self) -> Response:
        check_tile_request(body_of_request())
        return jsonify(status="success")

    def request_image(self) -> Response:
        check_tile_request(body_of_request())
        return jsonify(tile_idx=None)

    def submit_tiles(self) -> Response:
        check_tiles(request.form.to_dict(), _heads())
        return jsonify(status="success")

    def submit_image(self) -> Response:
        check_picture(request.form.to_dict(), _heads())
        return jsonify(status="success")


def _heads() -> dict[str, bytes]:
    """Returns the first bytes of the files of a form."""
    return {name: file.read(HEAD_BYTES) for name, file in request.files.items()}


OPERATIONS = (
    Operation(
        method="GET",
        rule="/queue_status/<job_id>",
        view=JobViews.queue_status,
        summary="Check that a tile job exists",
        description="Always false: there are no tile jobs here.",
        answer=schemas.QueueStatus,
    ),
    Operation(
        method="GET",
        rule="/job_status",
        view=JobViews.job_status,
        summary="Check that a tile job is ready",
        description="Always false: there are no tile jobs here.",
        answer=schemas.JobStatus,
    ),
    Operation(
        method="POST",
        rule="/prepare_job",
        view=JobViews.prepare_job,
        summary="Prepare a job for results",
        description="This server gathers results over SSH. The route exists for programs that test a master.",
        body=schemas.JobIdBody,
        answer=schemas.Success,
    ),
    Operation(
        method="POST",
        rule="/job_complete",
        view=JobViews.job_complete,
        summary="Send the picture of a worker",
        description="The picture is checked and not kept. Errors: 400 wrong fields, 404 the job was not "
        "prepared, 500 the picture cannot be decoded.",
        body=schemas.ResultBody,
        answer=schemas.Success,
    ),
    Operation(
        method="POST",
        rule="/heartbeat",
        view=JobViews.heartbeat,
        summary="Report that a worker is alive",
        description="Errors: 404 no such tile job.",
        body=schemas.HeartbeatBody,
        answer=schemas.Success,
    ),
    Operation(
        method="POST",
        rule="/request_image",
        view=JobViews.request_image,
        summary="Ask for the next tile",
        description="Errors: 404 no such tile job.",
        body=schemas.HeartbeatBody,
        answer=schemas.Success,
    ),
    Operation(
        method="POST",
        rule="/submit_tiles",
        view=JobViews.submit_tiles,
        summary="Send tiles of a worker",
        description="Errors: 404 no such tile job.",
        answer=schemas.Success,
    ),
    Operation(
        method="POST",
        rule="/submit_image",
        view=JobViews.submit_image,
        summary="Send a picture of a worker",
        description="Errors: 404 no such tile job.",
        answer=schemas.Success,
    ),
)
