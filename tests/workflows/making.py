"""Builders of small editor files and node definitions for tests."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from comfyui_workflow.workflows.editor.conversion import QueueContext, convert
from comfyui_workflow.workflows.node_definitions import Definitions, NodeDefinition

Json = dict[str, Any]
AT = datetime(2025, 3, 4, 5, 6, 7)


def class_of(
    required: Json | None = None, optional: Json | None = None, *, output: Any = (), **other: Any
) -> Json:
    declared = {"required": required or {}, "optional": optional or {}}
    order = {group: list(inputs) for group, inputs in declared.items()}
    return {"input": declared, "input_order": order, "output": list(output), **other}


def definition(**inputs: Any) -> NodeDefinition:
    found = Definitions({"X": class_of(inputs)}).get("X")
    assert found is not None
    return found


def node(node_id: Any, kind: str, values: Any = None, /, **other: Any) -> Json:
    made = {"id": node_id, "type": kind, "mode": 0, **other}
    return made if values is None else {**made, "widgets_values": values}


def socket(name: str, link: int | None = None, kind: str = "*", *, widget: bool = False) -> Json:
    made = {"name": name, "type": kind, "link": link}
    return {**made, "widget": {"name": name}} if widget else made


def file(*nodes: Json, links: Any = (), **other: Any) -> Json:
    return {"nodes": list(nodes), "links": [[*link, "*"] for link in links], "version": 0.4, **other}


def subgraph(
    name: str, *nodes: Json, links: Any = (), inputs: Any = (), outputs: Any = (), **other: Any
) -> Json:
    """Returns a subgraph definition. `inputs` and `outputs` are (name, type, *link ids)."""
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
    return {
        "id": name,
        "nodes": list(nodes),
        "links": [dict(zip(keys, link, strict=True)) for link in links],
        "inputs": [_port(*each) for each in inputs],
        "outputs": [_port(*each) for each in outputs],
        **other,
    }


def _port(name: str, kind: str, *link_ids: int) -> Json:
    return {"name": name, "type": kind, "linkIds": list(link_ids)}


def graph_of(
    workflow: Json,
    classes: Json,
    choose: Callable[[list[str]], str] = lambda choices: choices[-1],
    **other: Any,
) -> Json:
    return convert(workflow, Definitions(classes), QueueContext(at=AT, choose=choose, **other))


def inputs_of(workflow: Json, classes: Json, **other: Any) -> dict[str, Json]:
    """Converts the file and returns the inputs of each node in the graph, by node id."""
    return {node_id: one["inputs"] for node_id, one in graph_of(workflow, classes, **other).items()}
