"""Whether a graph is one, and whether this ComfyUI would run it."""

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
    """Raises: InvalidGraph, for what a ComfyUI cannot be handed without harm."""
    if is_editor_format(graph):
        raise InvalidGraph(
            "This is a workflow as the editor saves it, and a ComfyUI runs graphs: export it in API format "
            "(Workflow > Export (API)), or give it to a WorkflowServer, which converts it"
        )
    return check_graph(graph)


def with_editor_file(extra_data: Mapping[str, Any], editor_file: Mapping[str, Any] | None) -> dict[str, Any]:
    """ComfyUI's nodes write `extra_pnginfo` into the pictures they save. Raises: InvalidGraph for what no
    JSON can hold."""
    extra = dict(extra_data)
    if editor_file is not None:
        extra["extra_pnginfo"] = {**extra.get("extra_pnginfo", {}), "workflow": editor_file}
    check_json(extra)
    return extra


class Validator:
    """Keeps what is known of the node classes. A refusal by that is not believed before they were asked for
    anew: a model may have arrived since."""

    def __init__(self, client: ComfyUIClient) -> None:
        self._client = client
        self._known: Definitions | None = None

    def verdict(self, graph: object, *, structure_only: bool) -> Verdict:
        """Raises: ComfyUIUnavailable, unless only the structure is looked at."""
        try:
            checked = checked_graph(graph)
        except InvalidGraph as error:
            finding = Finding(code=error.code, message=str(error))
            return Verdict(findings=(finding,), would_run=False)
        if structure_only:
            return Verdict(findings=(), would_run=True)
        known = self._known
        if known is not None:
            verdict = verdict_of(self._client, checked, known)
            if verdict.would_run:
                return verdict
        self._known = fresh = Definitions(self._client.definitions())
        return verdict_of(self._client, checked, fresh, replaced=self._client.replaced_classes())
