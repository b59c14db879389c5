"""Refuses misspelled fields of a job. Other unknown fields are ignored, as RunPod and worker-comfyui do."""

from typing import Any

from flask import request

from comfyui_workflow.api.operations import Operation
from comfyui_workflow.parsing.fields import refuse_misspelled_fields
from comfyui_workflow.parsing.untrusted import as_object

JOB = ("input", "policy", "s3Config", "webhook", "webhookV2")
"""Documented fields of RunPod, and those of its clients, whether this server uses them or not."""
INPUT = ("comfy_org_api_key", "images", "workflow")
POLICY = ("executionTimeout", "lowPriority", "ttl")
S3_CONFIG = ("accessId", "accessSecret", "bucketName", "endpointUrl", "objectPath")
QUERY = ("ttl", "wait")


def refuse_misspelled_body(body: dict[str, Any], given_input: dict[str, Any]) -> None:
    """`given_input` is the parsed `input`. Raises: InvalidRequest, with the field that was meant."""
    refuse_misspelled_fields(body, JOB, "a job")
    refuse_misspelled_fields(given_input, INPUT, "input")
    refuse_misspelled_fields(as_object(body.get("policy")), POLICY, "policy")
    refuse_misspelled_fields(as_object(body.get("s3Config")), S3_CONFIG, "s3Config")


def refuse_misspelled_query(_operation: Operation) -> None:
    """Raises: InvalidRequest, with the parameter that was meant."""
    refuse_misspelled_fields(request.args, QUERY, "this request", "parameter")
