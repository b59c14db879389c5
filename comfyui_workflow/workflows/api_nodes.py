"""API nodes: nodes that call a service of Comfy.org, which requires an API key."""

from collections.abc import Mapping
from typing import Any

from comfyui_workflow.parsing.untrusted import as_object

_KEYS = ("API_KEY_COMFY_ORG", "AUTH_TOKEN_COMFY_ORG")


def nodes_that_need_a_key(graph: Mapping[str, Any], object_info: Mapping[str, Any]) -> list[str]:
    """Returns the ids of API nodes: the class declares the key as a hidden input, or sets `api_node`."""
    return [
        node_id
        for node_id, node in graph.items()
        if _needs_key(as_object(object_info.get(str(as_object(node).get("class_type")))))
    ]


def _needs_key(definition: Mapping[str, Any]) -> bool:
    hidden = as_object(as_object(definition.get("input")).get("hidden"))
    return definition.get("api_node") is True or any(
        word in _KEYS for kind in hidden.values() for word in (kind if isinstance(kind, list) else [kind])
    )
