"""Resolution of a request into the graph that is submitted: conversion, seeds, overrides."""

from collections.abc import Callable
from typing import Any

from comfyui_workflow.workflows.editor.conversion import QueueContext, convert
from comfyui_workflow.workflows.editor.left_out import left_out_findings
from comfyui_workflow.workflows.editor.widget_values import WidgetValue
from comfyui_workflow.workflows.findings import Finding
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.model import GraphRequest
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.overrides import with_inputs
from comfyui_workflow.workflows.seed_mode import SeedMode
from comfyui_workflow.workflows.seeds import (
    Draw,
    resolve_widget_value,
    with_new_seeds,
    with_random_seeds,
    with_stepped_seeds,
)


def resolve_graph(
    request: GraphRequest, definitions: Definitions, queueing: QueueContext, draw: Draw
) -> Graph:
    """Returns the graph to submit.

    It is the request's own graph object if nothing has to change. The `inputs` of the request are set last,
    so they override drawn seeds; a seed of -1 is drawn last, and then the step of the request is added to
    every seed. Raises: InvalidRequest.
    """
    graph = request.workflow.graph
    if needs_conversion(request):
        graph = convert(request.workflow.editor_file, definitions, queueing)
    elif request.seed_mode is SeedMode.RANDOMIZE:  # a graph has no "control after generate"
        graph = with_new_seeds(graph, definitions, draw)
    graph = with_inputs(graph, request.inputs, definitions) if request.inputs else graph
    graph = with_random_seeds(graph, definitions, draw)
    return with_stepped_seeds(graph, definitions, request.seed_step) if request.seed_step else graph


def preliminary_graph(request: GraphRequest) -> Graph:
    """Returns the part of the graph that is known without an instance: the `inputs` of the request are set;
    an editor file is converted without node definitions. Raises: InvalidRequest."""
    workflow = request.workflow
    graph = workflow.editor_outline if needs_conversion(request) else workflow.graph
    return with_inputs(graph, request.inputs, Definitions({})) if request.inputs else graph


def needs_conversion(request: GraphRequest) -> bool:
    """True if the editor file has to be converted, instead of using the graph.

    A picture can contain both: the graph that made it, and the editor file, which is used only if the seeds
    must change as its "control after generate" says.
    """
    workflow = request.workflow
    has_both = bool(workflow.graph) and workflow.editor_file is not None
    return not workflow.graph or (has_both and request.seed_mode is SeedMode.CONTROL)


def left_out(request: GraphRequest, definitions: Definitions) -> list[Finding]:
    """Returns a warning for each node of the editor file that the conversion leaves out, because it exists in
    the browser only. Raises: InvalidGraph."""
    editor_file = request.workflow.editor_file
    if editor_file is None or not needs_conversion(request):
        return []
    return left_out_findings(editor_file, definitions)


def widget_value_resolver(mode: SeedMode, draw: Draw) -> Callable[[WidgetValue], Any]:
    """Returns the function that computes the value with which a widget is queued."""
    return lambda widget: resolve_widget_value(widget, mode, draw)


def remote_routes(request: GraphRequest, definitions: Definitions) -> set[str]:
    """Returns the routes of the instance from which widgets in the editor file get their choices."""
    if not needs_conversion(request):
        return set()
    found = {node["class_type"] for node in request.workflow.editor_outline.values()}
    known = [definition for name in found if (definition := definitions.get(name))]
    remotes = [each.remote for definition in known for each in definition.inputs]
    return {remote.route for remote in remotes if remote and remote.takes_first}
