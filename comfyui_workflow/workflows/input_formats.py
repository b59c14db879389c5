"""Reader of workflows in every supported format: a graph, an editor file, a request body with either inside,
or a file that ComfyUI made."""

import json
from io import SEEK_END, BytesIO
from typing import BinaryIO, NamedTuple

from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.parsing.untrusted import as_object
from comfyui_workflow.workflows.editor.file import is_editor_format
from comfyui_workflow.workflows.graph import Graph, check_graph, check_json
from comfyui_workflow.workflows.image_metadata import (
    embedded_workflow,
    embedded_workflow_of_media,
    is_other_media,
    is_picture,
)
from comfyui_workflow.workflows.media_metadata import HEAD_BYTES
from comfyui_workflow.workflows.model import Workflow
from comfyui_workflow.workflows.unwrapping import api_key_in, unwrapped

LARGEST_WORKFLOW_BYTES = 64 * 1024 * 1024
"""Maximum size of a JSON file or a picture. Of videos only the metadata is read."""


class GivenWorkflow(NamedTuple):
    """A workflow, and the API key of Comfy.org that was saved around it, which must not be stored."""

    workflow: Workflow
    api_key: str | None = None


def read_workflow(value: object) -> Workflow:
    """Reads a workflow as `read_given`, without the API key."""
    return read_given(value).workflow


def read_given(value: object) -> GivenWorkflow:
    """Reads a workflow from parsed JSON, in either format, and makes the checks that need no instance.
    Bodies of requests and JSON texts around it are removed. Raises: InvalidGraph, naming node and input."""
    inner, editor_file = unwrapped(value)
    workflow = _from_file(inner, editor_file) if editor_file is not None else _read_unwrapped(inner)
    return GivenWorkflow(workflow, api_key_in(value))


def _read_unwrapped(value: object) -> Workflow:
    if not is_editor_format(value):
        return Workflow(graph=_checked_graph(value))
    check_json(value)
    return _with_checked_outline(Workflow(graph={}, editor_file=value))  # type: ignore[arg-type]


def read_workflow_file(content: bytes) -> Workflow:
    """Reads a workflow from the content of a file. Raises: as `read_given_stream`."""
    return read_given_stream(BytesIO(content)).workflow


def read_given_stream(file: BinaryIO) -> GivenWorkflow:
    """Reads a workflow from an open file. Raises: InvalidGraph; ValueError or RecursionError if the file is
    neither JSON nor a file that ComfyUI made; OSError."""
    size = file.seek(0, SEEK_END)
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if is_other_media(head):
        return GivenWorkflow(_from_file(*embedded_workflow_of_media(file)))
    if size > LARGEST_WORKFLOW_BYTES:
        raise ValueError("it is too large to be a workflow")
    content = head + file.read()
    if is_picture(head):
        return GivenWorkflow(_from_file(*embedded_workflow(content)))
    return read_given(json.loads(content))


def _from_file(prompt: object, workflow: object) -> Workflow:
    """Builds the workflow from both parts of the metadata.

    The prompt is the exact graph that made the file, with all seeds. The editor file is optional: it is
    left out if it is broken, because the graph runs without it.
    """
    if prompt is None:
        return _read_unwrapped(workflow)
    graph_only = Workflow(graph=_checked_graph(prompt))
    if not is_editor_format(workflow):
        return graph_only
    try:
        check_json(workflow)
        return _with_checked_outline(Workflow(graph=graph_only.graph, editor_file=workflow))  # type: ignore[arg-type]
    except InvalidGraph:
        return graph_only


def _checked_graph(value: object) -> Graph:
    """Checks a graph, without the results of `IS_CHANGED`. ComfyUI writes these into the nodes of an executed
    prompt, and so into its files: often NaN, which is not JSON. In a prompt that is submitted again they
    would replace the call of `IS_CHANGED`, so that ComfyUI would not notice another input file of the same
    name. Raises: InvalidGraph."""
    if isinstance(value, dict) and any("is_changed" in as_object(node) for node in value.values()):
        value = {
            node_id: {name: part for name, part in node.items() if name != "is_changed"}
            if isinstance(node, dict)
            else node
            for node_id, node in value.items()
        }
    return check_graph(value)


def _with_checked_outline(workflow: Workflow) -> Workflow:
    """Computes, checks and caches the outline. Raises: InvalidGraph."""
    _ = workflow.editor_outline
    return workflow
