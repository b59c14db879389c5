"""The body of `execute` that would ask for what a run was asked for, and the graph that it submits."""

from typing import Any

from comfyui_workflow.api.request import text
from comfyui_workflow.api.run_requests import usual_port
from comfyui_workflow.runs.model import Run, RunRequest
from comfyui_workflow.scheduling.capacity import Registry
from comfyui_workflow.ssh import defaults
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.resolve import foreseen_graph, is_to_convert
from comfyui_workflow.workflows.seed_mode import SeedMode


def body_again(request: RunRequest, directory: Registry) -> dict[str, Any]:
    """What was left to its default is left out: with another instance, that default may be another."""
    asked = {
        "ssh_connection": _connection(request, directory),
        "workflow": _workflow_asked(request),
        "workflow_name": request.workflow_name,
        "output_dir": request.output_dir,
    }
    usual = {
        "inputs": ({}, dict(request.inputs)),
        "seed_mode": (SeedMode.SAVED, request.seed_mode.value),
        "input_images": ([], list(request.input_images)),
        "comfyui_port": (usual_port(request.target), request.comfyui_port),
        "comfyui_input_dir": (defaults.INPUT_DIR, request.comfyui_input_dir),
        "comfyui_output_dir": (defaults.OUTPUT_DIR, request.comfyui_output_dir),
        "include_previews": (False, request.include_previews),
        "priority": (0, request.priority),
    }
    return asked | {name: value for name, (default, value) in usual.items() if value != default}


def run_meant(body: dict[str, Any]) -> str | None:
    """The id of the run that a body asks for again. Raises: InvalidRequest."""
    return text(body, "again") or None


def with_changes(before: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """The body, with what it does not say as before. Inputs are set besides those of before, and win."""
    names_workflow = {"workflow", "workflow_file"} & body.keys()
    kept = {name: value for name, value in before.items() if not (names_workflow and name == "workflow")}
    inputs = body.get("inputs")
    if isinstance(inputs, dict):
        return {**kept, **body, "inputs": {**kept.get("inputs", {}), **inputs}}
    return {**kept, **body}


def graph_of_run(run: Run) -> Graph | None:
    """What was or will be submitted; None while the instance has a say in it and has not been reached."""
    request = run.request
    is_asked_for_as_it_is = not (
        is_to_convert(request) or request.inputs or request.seed_mode is SeedMode.RANDOMIZE
    )
    is_known = run.prepared_graph is not None or run.prompt_id is not None or is_asked_for_as_it_is
    return run.graph if is_known else None


def workflow_of(run: Run) -> Any:
    """What was or will be submitted; while the instance has a say in that, as far as it is known."""
    known, request = graph_of_run(run), run.request
    if known is not None or is_to_convert(request):
        return known or request.workflow.editor_file
    return foreseen_graph(request)


def _workflow_asked(request: RunRequest) -> Any:
    workflow = request.workflow
    return workflow.editor_file if is_to_convert(request) else workflow.graph


def _connection(request: RunRequest, directory: Registry) -> str:
    """As it was asked; an instance that goes by another name since, by its id."""
    instance = directory.get(request.instance_id) if request.instance_id else None
    if instance is None or directory.get(request.ssh_connection) == instance:
        return request.ssh_connection
    return instance.id
