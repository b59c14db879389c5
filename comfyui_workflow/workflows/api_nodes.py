"""API nodes, also called partner nodes: they call a service of Comfy.org, which requires an API key and costs
credits."""

from collections.abc import Mapping
from typing import Any

from comfyui_workflow.parsing.untrusted import as_object, shown
from comfyui_workflow.workflows.findings import Finding, Severity
from comfyui_workflow.workflows.graph import Graph, node_title

_KEYS = ("API_KEY_COMFY_ORG", "AUTH_TOKEN_COMFY_ORG")


def nodes_that_need_a_key(graph: Mapping[str, Any], object_info: Mapping[str, Any]) -> list[str]:
    """Returns the ids of API nodes: the class declares the key as a hidden input, or sets `api_node`."""
    return [
        node_id
        for node_id, node in graph.items()
        if _needs_key(as_object(object_info.get(str(as_object(node).get("class_type")))))
    ]


def partner_nodes(graph: Mapping[str, Any], object_info: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the ids of the partner nodes (`api_node`): each execution costs credits of Comfy.org."""
    return tuple(
        node_id
        for node_id, node in graph.items()
        if as_object(object_info.get(str(as_object(node).get("class_type")))).get("api_node") is True
    )


def cost_findings(graph: Graph, object_info: Mapping[str, Any]) -> list[Finding]:
    """Returns a warning for each partner node."""
    return [
        _finding(graph, node_id, "costs_credits", "each execution costs credits of Comfy.org")
        for node_id in partner_nodes(graph, object_info)
    ]


def missing_key_findings(graph: Graph, object_info: Mapping[str, Any]) -> list[Finding]:
    """Returns a warning for each API node of a run that has no key. ComfyUI accepts such a graph; the node
    fails when it executes."""
    message = (
        "it calls a service of Comfy.org, and the run has no API key: comfy_org_api_key, or --comfy-api-key"
    )
    return [
        _finding(graph, node_id, "api_key_missing", message)
        for node_id in nodes_that_need_a_key(graph, object_info)
    ]


def _finding(graph: Graph, node_id: str, code: str, message: str) -> Finding:
    return Finding(
        code=code,
        message=message,
        severity=Severity.WARNING,
        node_id=node_id,
        class_type=shown(graph[node_id]["class_type"]),
        title=node_title(graph[node_id]),
    )


def _needs_key(definition: Mapping[str, Any]) -> bool:
    hidden = as_object(as_object(definition.get("input")).get("hidden"))
    return definition.get("api_node") is True or any(
        word in _KEYS for kind in hidden.values() for word in (kind if isinstance(kind, list) else [kind])
    )
