"""Rebuilds the `execute` body of a run, for running it again, and the graph that the run submits."""

from typing import Any

from comfyui_workflow.api.request import text
from comfyui_workflow.api.run_requests import default_comfyui_port
from comfyui_workflow.runs.model import Run, RunRequest
from comfyui_workflow.runs.parts import Partial, PartsOrder
from comfyui_workflow.runs.upload_target import upload_field
from comfyui_workflow.scheduling.capacity import Registry
from comfyui_workflow.ssh import defaults
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.resolve import needs_conversion, preliminary_graph
from comfyui_workflow.workflows.seed_mode import SeedMode


def request_body_of(request: RunRequest, directory: Registry) -> dict[str, Any]:
    """Returns a body of `execute` that requests the same run. Values equal to their default are left out:
    with another instance the default may differ."""
    required = {
        "ssh_connection": _target_text(request, directory),
        "workflow": _requested_workflow(request),
        "workflow_name": request.workflow_name,
        "output_dir": request.output_dir,
    }
    optional = {
        "inputs": ({}, _inputs(request)),
        "seed_mode": (SeedMode.SAVED, request.seed_mode.value),
        "input_images": ([], _input_images(request)),
        "upload": (None, request.upload and upload_field(request.upload)),
        "comfyui_port": (default_comfyui_port(request.target), request.comfyui_port),
        "comfyui_input_dir": (defaults.INPUT_DIR, request.comfyui_input_dir),
        "comfyui_output_dir": (defaults.OUTPUT_DIR, request.comfyui_output_dir),
        "include_previews": (False, request.include_previews),
        "convert": (None, request.convert and request.convert.document()),
        "priority": (0, request.priority),
        "provision": (False, request.provision),
        **_parts_fields(request.parts, directory),
    }
    return required | {name: value for name, (default, value) in optional.items() if value != default}


def repeated_run_id(body: dict[str, Any]) -> str | None:
    """Returns `again` of a body: the id of the run to repeat, or None. Raises: InvalidRequest."""
    return text(body, "again") or None


def merge_bodies(before: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """Merges a new body into the body of an earlier run. New values have precedence; `inputs` are merged by
    name; a new `workflow_file` also replaces the earlier `workflow`."""
    names_workflow = {"workflow", "workflow_file"} & body.keys()
    kept = {name: value for name, value in before.items() if not (names_workflow and name == "workflow")}
    inputs = body.get("inputs")
    if isinstance(inputs, dict):
        return {**kept, **body, "inputs": {**kept.get("inputs", {}), **inputs}}
    return {**kept, **body}


def graph_of_run(run: Run) -> Graph | None:
    """Returns the graph that the run submits. None if it depends on the instance (conversion, inputs, random
    seeds) and is not prepared yet."""
    request = run.request
    is_submitted_unchanged = not (
        needs_conversion(request) or request.inputs or request.seed_mode is SeedMode.RANDOMIZE
    )
    is_known = run.prepared_graph is not None or run.prompt_id is not None or is_submitted_unchanged
    return run.graph if is_known else None


def workflow_of(run: Run) -> Any:
    """Returns the graph that the run submits; if it is not known yet, the editor file or a preview of the
    graph."""
    known, request = graph_of_run(run), run.request
    if known is not None or needs_conversion(request):
        return known or request.workflow.editor_file
    return preliminary_graph(request)


def _parts_fields(order: PartsOrder | None, directory: Registry) -> dict[str, tuple[Any, Any]]:
    if order is None or order.collects is not None:
        return {}
    among = [each.name for each in map(directory.get, order.among) if each is not None]
    return {
        "spread": (1, order.count),
        "spread_over": ([], among),
        "partial": (Partial.MOVE, order.partial.value),
    }


def _inputs(request: RunRequest) -> dict[str, Any]:
    """Values that were URLs of inputs are URLs again."""
    urls = {each.path: each.url for each in request.downloads}
    return {
        name: urls.get(value, value) if isinstance(value, str) else value
        for name, value in request.inputs.items()
    }


def _input_images(request: RunRequest) -> list[str]:
    """Inputs that were given by URL are URLs again, without their secrets."""
    urls = {each.path: each.url for each in request.downloads}
    return [urls.get(path, path) for path in request.input_images]


def _requested_workflow(request: RunRequest) -> Any:
    workflow = request.workflow
    return workflow.editor_file if needs_conversion(request) else workflow.graph


def _target_text(request: RunRequest, directory: Registry) -> str:
    """Returns the target as requested; the id of the instance if its name has changed since."""
    instance = directory.get(request.instance_id) if request.instance_id else None
    if instance is None or directory.get(request.ssh_connection) == instance:
        return request.ssh_connection
    return instance.id
