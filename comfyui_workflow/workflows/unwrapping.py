"""Removes the wrapping of a workflow: bodies of requests, responses of ComfyUI, and JSON texts in JSON.

A workflow is often saved together with what surrounds it: the body of `POST /prompt`, the input of a job, an
entry of `/history`. The graph, or the editor file, is inside, and its outer fields say where.
"""

import json
from typing import Any

from comfyui_workflow.parsing.untrusted import as_object
from comfyui_workflow.workflows.editor.file import is_editor_format

_DEEPEST = 8
_OUTER_FIELDS = ("input", "body")
_GRAPH_FIELDS = ("prompt", "output", "workflow_api")
_EDITOR_FIELD = "workflow"
_KEY_FIELDS = ("api_key_comfy_org", "comfy_org_api_key")


def unwrapped(value: object) -> tuple[object, object]:
    """Returns (graph or the value itself, editor file or None). Nothing is checked."""
    for _ in range(_DEEPEST):
        inner = _parsed(value)
        if not isinstance(inner, dict) or is_editor_format(inner) or _is_graph(inner):
            return inner, None
        found = _inside(inner)
        if found is None:
            return inner, None
        value, editor_file = found
        if editor_file is not None:
            return _parsed(value), editor_file
    return value, None


def api_key_in(value: object) -> str | None:
    """Returns the API key of Comfy.org in what surrounds a workflow. ComfyUI's editor sends it in
    `extra_data`, and orders of this server have it beside the workflow."""
    for _ in range(_DEEPEST):
        inner = _parsed(value)
        if not isinstance(inner, dict) or is_editor_format(inner) or _is_graph(inner):
            return None
        found = _inside(inner)
        key = _key_beside_graph(inner)
        if key is not None or found is None:
            return key
        value = found[0]
    return None


def _key_beside_graph(layer: dict[str, Any]) -> str | None:
    queued = layer.get("prompt")
    extras = [layer.get("extra_data"), *(queued[3:4] if isinstance(queued, list) else ())]
    places = [layer, *map(as_object, extras)]
    keys = (place.get(name) for place in places for name in _KEY_FIELDS)
    return next((key for key in keys if isinstance(key, str) and key), None)


def _inside(value: dict[str, Any]) -> tuple[object, object] | None:
    """Returns the content of one layer, as (graph, editor file). None if this is no known layer."""
    if len(value) == 1 and "prompt" in as_object(next(iter(value.values()))):
        return next(iter(value.values())), None  # /history/{id}
    for field in _OUTER_FIELDS:
        if _is_wrapped(value.get(field)):
            return value[field], None
    graph = next((value[field] for field in _GRAPH_FIELDS if _is_wrapped(value.get(field))), None)
    editor_file = _parsed(value.get(_EDITOR_FIELD))
    extra: object = value.get("extra_data")
    match graph:
        case [_, _, dict() as executed, extra, *_]:  # "prompt" of an entry in /history
            graph = executed
    if graph is None:
        return (editor_file, None) if isinstance(editor_file, dict) else None
    if not is_editor_format(editor_file):
        editor_file = as_object(as_object(extra).get("extra_pnginfo")).get(_EDITOR_FIELD)
    return graph, editor_file if is_editor_format(editor_file) else None


def _is_graph(value: dict[str, Any]) -> bool:
    return any("class_type" in as_object(node) for node in value.values())


def _is_wrapped(value: object) -> bool:
    return isinstance(value, dict | list) or isinstance(_parsed(value), dict)


def _parsed(value: object) -> object:
    """Parses a text that contains a JSON object; returns any other value unchanged."""
    text = value.lstrip("\ufeff \t\r\n") if isinstance(value, str) else ""
    if not text.startswith(("{", '"')):
        return value
    try:
        inner = json.loads(text)
    except (ValueError, RecursionError):
        return value
    return _parsed(inner) if isinstance(inner, str) and inner != value else inner
