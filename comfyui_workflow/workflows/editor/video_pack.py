"""Saved values of the node pack VideoHelperSuite, as its browser code reads them.

How it works: the pack saves the values by name. Old files have a list, or names that have changed since. The
class lists further widgets for each format of a video; all other values in the file are only shown.
"""

from collections.abc import Mapping
from typing import Any

from comfyui_workflow.parsing.untrusted import as_list, as_object
from comfyui_workflow.workflows.node_definitions import NodeDefinition

_PREFIX = "VHS_"
_OLD_LOADER = ("video", "force_rate", "force_size", "frame_load_cap", "skip_first_frames", "select_every_nth")
_OLD_ROWS: Mapping[str, tuple[str, ...]] = {
    "VHS_LoadImages": ("directory", "", "image_load_cap", "skip_first_images", "select_every_nth"),
    "VHS_LoadImagesPath": ("directory", "image_load_cap", "skip_first_images", "select_every_nth"),
    "VHS_VideoCombine": ("frame_rate", "loop_count", "filename_prefix", "format", "pingpong", "save_output"),
    "VHS_LoadVideo": _OLD_LOADER,
    "VHS_LoadVideoPath": _OLD_LOADER,
}
"""The names of the values in a list; a button has none."""


_COUNTS: Mapping[str, tuple[str, ...]] = {"VHS_BatchManager": ("count",)}
"""Numbers that the browser code adds, and sends."""


def is_video_node(class_type: str) -> bool:
    return class_type.startswith(_PREFIX)


def with_current_names(class_type: str, saved: Any) -> Any:
    """Returns the saved values under the names of today; values of other packs as they are."""
    names = _OLD_ROWS.get(class_type, ())
    if isinstance(saved, list) and names and len(saved) >= len(names):
        saved = {name: value for name, value in zip(names, saved, strict=False) if name}
    if not is_video_node(class_type) or not isinstance(saved, dict):
        return saved
    renamed = {"save_output": saved["save_image"]} if "save_image" in saved else {}
    return {**renamed, **saved, **_sizes(saved.get("force_size"))}


def _sizes(force_size: object) -> Mapping[str, int]:
    """Returns width and height from the single value that they once were: `512x?`, `Disabled`. 0 means that
    the size of the video counts."""
    if not isinstance(force_size, str):
        return {}
    width, is_size, height = force_size.partition("x")
    if is_size:
        return {"custom_width": _pixels(width), "custom_height": _pixels(height)}
    return {
        name: 0
        for name, unused in (("custom_width", "Custom Height"), ("custom_height", "Custom Width"))
        if force_size in ("Disabled", unused)
    }


def _pixels(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 9 else 0


def widgets_of_formats(
    definition: NodeDefinition, sent: Mapping[str, Any], saved: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Returns the values of widgets that the class does not declare: those of the chosen format. `formats`
    lists them for each format as [name, type or choices, options]."""
    formats = [(sent.get(each.name), as_object(each.options.get("formats"))) for each in definition.inputs]
    chosen = [widgets.get(name) for name, widgets in formats if isinstance(name, str)]
    rows = [row for widgets in chosen for row in map(as_list, as_list(widgets)) if len(row) > 1]
    values = {str(row[0]): saved.get(str(row[0]), _default(row)) for row in rows}
    values |= {name: saved[name] for name in _COUNTS.get(definition.class_type, ()) if name in saved}
    return {name: value for name, value in values.items() if value is not None}


def _default(row: list[Any]) -> Any:
    """Returns the default of a widget, or its first choice; None if it has neither."""
    options = as_object(row[2]) if len(row) > 2 else {}
    choices = as_list(row[1])
    return options.get("default", choices[0] if choices else None)
