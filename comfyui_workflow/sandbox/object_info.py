"""Serialization of node classes for GET /object_info."""

from typing import Any

from comfyui_workflow.sandbox.node import Folders, NodeClasses, SandboxNode


def serialize_classes(node_classes: NodeClasses, folders: Folders) -> dict[str, Any]:
    return {name: serialize_class(name, node_class, folders) for name, node_class in node_classes.items()}


def serialize_class(name: str, node_class: type[SandboxNode], folders: Folders) -> dict[str, Any]:
    input_types = node_class.input_types(folders)
    outputs = list(node_class.RETURN_TYPES)
    return {
        "input": input_types,
        "input_order": {group: list(inputs) for group, inputs in input_types.items()},
        "output": outputs,
        "output_is_list": [False] * len(outputs),
        "output_name": list(node_class.RETURN_NAMES or outputs),
        "name": name,
        "display_name": node_class.DISPLAY_NAME or name,
        "description": node_class.DESCRIPTION,
        "python_module": node_class.MODULE,
        "category": node_class.CATEGORY,
        "output_node": node_class.OUTPUT_NODE,
    }
