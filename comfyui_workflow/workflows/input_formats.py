"""Reader of workflows in every supported format: a graph, an editor file, or a picture with either inside."""

import json

from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.workflows.editor.file import is_editor_format
from comfyui_workflow.workflows.graph import check_graph, check_json
from comfyui_workflow.workflows.image_metadata import embedded_workflow, is_picture
from comfyui_workflow.workflows.model import Workflow


def read_workflow(value: object) -> Workflow:
    """Reads a workflow from parsed JSON, in either format, and makes the checks that need no instance.
    Raises: InvalidGraph, naming node and input."""
    if not is_editor_format(value):
        return Workflow(graph=check_graph(value))
    check_json(value)
    return _with_checked_outline(Workflow(graph={}, editor_file=value))  # type: ignore[arg-type]


def read_workflow_file(content: bytes) -> Workflow:
    """Reads a workflow from the content of a file. Raises: InvalidGraph; ValueError or RecursionError if the
    file is neither a picture nor JSON."""
    if is_picture(content):
        return _from_picture(*embedded_workflow(content))
    return read_workflow(json.loads(content))


def _from_picture(prompt: object, workflow: object) -> Workflow:
    """Builds the workflow from both parts of the metadata.

    The prompt is the exact graph that made the picture, with all seeds. The editor file is optional: it is
    left out if it is broken, because the graph runs without it.
    """
    if prompt is None:
        return read_workflow(workflow)
    graph_only = Workflow(graph=check_graph(prompt))
    if not is_editor_format(workflow):
        return graph_only
    try:
        check_json(workflow)
        return _with_checked_outline(Workflow(graph=graph_only.graph, editor_file=workflow))  # type: ignore[arg-type]
    except InvalidGraph:
        return graph_only


def _with_checked_outline(workflow: Workflow) -> Workflow:
    """Computes, checks and caches the outline. Raises: InvalidGraph."""
    _ = workflow.editor_outline
    return workflow
