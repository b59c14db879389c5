"""Validation of a graph: its structure, and against the node classes of a ComfyUI."""

from collections.abc import Mapping
from typing import Any

from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.comfyui.remote_validation import verdict_of
from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.workflows.editor.file import is_editor_format
from comfyui_workflow.workflows.findings import Finding
from comfyui_workflow.workflows.graph import Graph, check_graph, check_json
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.validation.preflight import Verdict


def checked_graph(graph: object) -> Graph:
    """Checks the structure of a graph. Raises: InvalidGraph for an object that must not be sent to
    ComfyUI."""
    if is_editor_format(graph):
        raise InvalidGraph(
            "This is a workflow in the editor's format, and ComfyUI runs graphs in API format: export it "
            "with Workflow > Export (API), or send it with WorkflowServer, which converts it"
        )
    return check_graph(graph)


def with_editor_file(extra_data: Mapping[str, Any], editor_file: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns `extra_data` with the editor file in `extra_pnginfo`, which ComfyUI's nodes write into the
    pictures they save. Raises: InvalidGraph for values that JSON cannot hold."""
    extra = dict(extra_data)
    if editor_file is not None:
        extra["extra_pnginfo"] = {**extra.get("extra_pnginfo", {}), "workflow": editor_file}
    check_json(extra)
    return extra


class Validator:
    """Validates graphs with cached node classes. If the cache refuses a graph, the node classes are fetched
    again before the refusal counts: a model may have been added since."""

    def __init__(self, client: ComfyUIClient) -> None:
        self._client = client
        self._cached: Definitions | None = None

    def verdict(self, graph: object, *, structure_only: bool) -> Verdict:
        """Returns the findings. Raises: ComfyUIUnavailable, unless only the structure is checked."""
        try:
            checked = checked_graph(graph)
        except InvalidGraph as error:
            finding = Finding(code=error.code, message=str(error))
            return Verdict(findings=(finding,), would_run=False)
        if structure_only:
            return Verdict(findings=(), would_run=True)
        cached = self._cached
        if cached is not None:
            verdict = verdict_of(self._client, checked, cached)
            if verdict.would_run:
                return verdict
        self._cached = fresh = Definitions(self._client.definitions())
        return verdict_of(self._client, checked, fresh, replaced=self._client.replaced_classes())
