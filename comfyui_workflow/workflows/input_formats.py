"""A workflow as somebody gives it: a graph, the editor's file, or a picture with either inside."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.workflows.editor.conversion import Queueing, convert
from comfyui_workflow.workflows.editor.file import is_editor_format
from comfyui_workflow.workflows.graph import Graph, check_graph, check_json
from comfyui_workflow.workflows.image_metadata import embedded_workflow, is_picture
from comfyui_workflow.workflows.node_definitions import Definitions

_NOT_QUEUED = Queueing(at=datetime(2000, 1, 1), choose=lambda choices: choices[0])


@dataclass(frozen=True, kw_only=True)
class GivenWorkflow:
    """At least one of the two; what is there has been checked as far as that goes without an instance."""

    graph: Graph
    editor_file: Mapping[str, Any] | None = None
    outline: Graph
    """What is known of the graph so far: all of it, or `outline` of the editor's file."""


def read_given(value: object) -> GivenWorkflow:
    """From JSON, in either format. Raises: InvalidGraph, naming node and input."""
    if not is_editor_format(value):
        graph = check_graph(value)
        return GivenWorkflow(graph=graph, outline=graph)
    check_json(value)
    return GivenWorkflow(graph={}, editor_file=value, outline=outline(value))  # type: ignore[arg-type]


def outline(editor_file: object) -> Graph:
    """Which nodes of the editor's file run and how they are linked, as far as one can tell without the node
    definitions. Raises: InvalidGraph."""
    return check_graph(convert(editor_file, Definitions({}), _NOT_QUEUED))


def read_given_file(content: bytes) -> GivenWorkflow:
    """From the content of a file. Raises: InvalidGraph; ValueError or RecursionError for what is neither a
    picture nor JSON."""
    if is_picture(content):
        return _from_picture(*embedded_workflow(content))
    return read_given(json.loads(content))


def _from_picture(prompt: object, workflow: object) -> GivenWorkflow:
    """The prompt is what made the picture, to the last seed; the file only goes along."""
    if prompt is None:
        return read_given(workflow)
    graph = check_graph(prompt)
    return GivenWorkflow(graph=graph, editor_file=_file_beside(workflow), outline=graph)


def _file_beside(workflow: object) -> Mapping[str, Any] | None:
    """None for a broken one too: the graph runs without it."""
    try:
        return read_given(workflow).editor_file if is_editor_format(workflow) else None
    except InvalidGraph:
        return None
