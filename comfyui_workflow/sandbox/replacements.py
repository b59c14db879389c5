"""Node replacements: classes that ComfyUI no longer has, and what it puts in their place in a graph."""

from typing import Any

from comfyui_workflow.sandbox.catalog import Catalog
from comfyui_workflow.sandbox.links import Graph, is_link

Replacement = dict[str, Any]


def _replacement(
    old: str,
    new: str,
    *,
    moved: dict[str, str] | None = None,
    new_values: dict[str, object] | None = None,
    widgets: list[str] | None = None,
    slots: dict[int, int] | None = None,
) -> Replacement:
    """`moved` has the old name of each new input, `slots` the new slot of each old output."""
    mapping: list[dict[str, object]] = [
        {"new_id": name, "old_id": was} for name, was in (moved or {}).items()
    ]
    mapping += [{"new_id": name, "set_value": value} for name, value in (new_values or {}).items()]
    outputs = [{"new_idx": slot, "old_idx": was} for was, slot in (slots or {}).items()]
    return {
        "new_node_id": new,
        "old_node_id": old,
        "old_widget_ids": widgets,
        "input_mapping": mapping or None,
        "output_mapping": outputs or None,
    }


REPLACEMENTS: dict[str, list[Replacement]] = {
    replacement["old_node_id"]: [replacement]
    for replacement in (
        _replacement(
            "ResizeImagesByLongerEdge",
            "ImageScaleToMaxDimension",
            moved={"image": "images", "largest_size": "longer_edge"},
            new_values={"upscale_method": "lanczos"},
            widgets=["longer_edge"],
            slots={0: 0},
        ),
        _replacement(
            "ImageBatch",
            "BatchImagesNode",
            moved={"images.image0": "image1", "images.image1": "image2"},
        ),
        _replacement(
            "ImageScaleBy",
            "ResizeImageMaskNode",
            moved={"input": "image", "resize_type.multiplier": "scale_by", "scale_method": "upscale_method"},
            new_values={"resize_type": "scale by multiplier"},
            widgets=["upscale_method", "scale_by"],
        ),
        _replacement("T2IAdapterLoader", "ControlNetLoader", moved={"control_net_name": "t2i_adapter_name"}),
        _replacement("Load3DAnimation", "Load3D"),
        _replacement("Preview3DAnimation", "Preview3D"),
        _replacement("SDV_img2vid_Conditioning", "SVD_img2vid_Conditioning"),
        _replacement("ConditioningAverage ", "ConditioningAverage"),
    )
}
"""The response to GET /node_replacements, as a list for each class. A class that exists is never replaced."""


def replace_nodes(graph: Graph, catalog: Catalog) -> None:
    """Replaces in place the nodes whose class is gone.

    Raises: KeyError, for such a node without `_meta` or without an input that the replacement takes over;
    POST /prompt then has the status 500.
    """
    gone = {
        node_id: REPLACEMENTS[node["class_type"]][0]
        for node_id, node in graph.items()
        if "class_type" in node and "inputs" in node and _is_gone(node["class_type"], catalog)
    }
    for node_id, replacement in gone.items():
        graph[node_id] = _replaced(graph[node_id], replacement)
        _move_links(graph, node_id, replacement["output_mapping"] or [])


def _is_gone(class_type: str, catalog: Catalog) -> bool:
    if class_type not in REPLACEMENTS or class_type in catalog:
        return False
    return REPLACEMENTS[class_type][0]["new_node_id"] in catalog


def _replaced(node: dict[str, Any], replacement: Replacement) -> dict[str, Any]:
    inputs = {
        entry["new_id"]: entry["set_value"] if "set_value" in entry else node["inputs"][entry["old_id"]]
        for entry in replacement["input_mapping"] or []
    }
    kept = {**node, "_meta": dict(node["_meta"])}
    return {**kept, "inputs": inputs, "class_type": replacement["new_node_id"]}


def _move_links(graph: Graph, source: str, output_mapping: list[dict[str, int]]) -> None:
    """Changes the links to the outputs of a replaced node."""
    new_slots = {entry["old_idx"]: entry["new_idx"] for entry in output_mapping}
    for node in graph.values():
        for link in node.get("inputs", {}).values():
            if is_link(link) and link[0] == source:
                link[1] = new_slots.get(link[1], link[1])
