"""Reader of a workflow as somebody gives it: a graph, the editor's file, or a picture with either inside."""

import json

from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.workflows.editor.file import is_editor_format
from comfyui_workflow.workflows.graph import check_graph, check_json
from comfyui_workflow.workflows.image_metadata import embedded_workflow, is_picture
from comfyui_workflow.workflows.model import Workflow


def read_workflow(value: object) -> Workflow:
    """From JSON, in either format; checked as far as that goes without an instance.
    Raises: InvalidGraph, naming node and input."""
    if not is_editor_format(value):
        return Workflow(graph=check_graph(value))
    check_json(value)
    return _outlined(Workflow(graph={}, editor_file=value))  # type: ignore[arg-type]


def read_workflow_file(content: bytes) -> Workflow:
    """From the content of a file. Raises: InvalidGraph; ValueError or RecursionError for what is neither a
    picture nor JSON."""
    if is_picture(content):
        return _from_picture(*embedded_workflow(content))
    return read_workflow(json.loads(content))


def _from_picture(prompt: object, workflow: object) -> Workflow:
    """The prompt is what made the picture, to the last seed; the file only goes along, and is left out where
    it is broken: the graph runs without it."""
    if prompt is None:
        return read_workflow(workflow)
    alone = Workflow(graph=check_graph(prompt))
    if not is_editor_format(workflow):
        return alone
    try:
        check_json(workflow)
        return _outlined(Workflow(graph=alone.graph, editor_file=workflow))  # type: ignore[arg-type]
    except InvalidGraph:
        return alone


def _outlined(workflow: Workflow) -> Workflow:
    """The outline is checked when it is made, and kept. Raises: InvalidGraph."""
    _ = workflow.editor_outline
    return workflow
