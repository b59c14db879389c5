"""Inputs that a class does not declare: the browser code of a node pack adds their widgets.

How it works: such a value is sent under the name that the file gives it. A file without names needs to be
known by its class. ComfyUI ignores the inputs that a class does not take.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from comfyui_workflow.parsing.untrusted import as_object
from comfyui_workflow.workflows.dynamic_inputs import is_dynamic
from comfyui_workflow.workflows.editor.file import EditorNode
from comfyui_workflow.workflows.editor.video_pack import is_video_node, widgets_of_formats
from comfyui_workflow.workflows.editor.widget_values import CONTROLS, NodeWidgets, WidgetValue
from comfyui_workflow.workflows.node_definitions import NodeDefinition

_CORE_MODULES = ("nodes", "comfy_extras.", "comfy_api_nodes.")
_NUMBERED = re.compile(r"#[0-9]+$")
"""The editor numbers widgets of one node that have the same name."""
_LORA_HEADER = "PowerLoraLoaderHeaderWidget"
_SIZES = frozenset({"target_width", "target_height", "crop_width", "crop_height"})
_NOTHING_CHOSEN = re.compile(r"disable\s[a-z]", re.IGNORECASE)


def undeclared_inputs(
    node: EditorNode, definition: NodeDefinition, widgets: NodeWidgets, sent: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Returns the values of inputs that the class does not declare. `sent` are those that it declares."""
    own = _OWN_RULES.get(node.type)
    if own is not None:
        return own(node, sent)
    if is_video_node(node.type):
        return widgets_of_formats(definition, sent, _named(node))
    if definition.module == _CORE_MODULES[0] or definition.module.startswith(_CORE_MODULES[1:]):
        return {}  # the widgets that the editor adds to ComfyUI's own classes only show something
    dynamic = tuple(f"{each.name}." for each in definition.inputs if is_dynamic(each))
    known = widgets.names | {each.name for each in widgets.inputs} | set(CONTROLS)
    return {
        name: value
        for name, value in _named(node).items()
        if _NUMBERED.sub("", name) not in known and not name.startswith(dynamic or ("\0",))
    }


def is_withheld(node: EditorNode, widget: WidgetValue) -> bool:
    """True for a declared widget that the browser code of the pack takes away: a list of names to insert into
    a prompt, if it has no names; the sizes of a prompt, which are sockets there."""
    if "Power Prompt" not in node.type:
        return False
    name, choices = widget.definition.name, widget.definition.choices or ()
    if name in _SIZES:
        return not widget.is_saved
    has_names = len(choices) > 1 and not _NOTHING_CHOSEN.match(str(choices[1]))
    return name.startswith("insert_") and not (len(choices) > 2 or has_names)


def _named(node: EditorNode) -> Mapping[str, Any]:
    if isinstance(node.values, dict):
        return node.values
    if node.named_values is not None:
        return node.named_values
    return dict(zip(_ROW_NAMES.get(node.type, ()), node.values, strict=False))


def _row(node: EditorNode) -> list[Any]:
    values = node.values or node.named_values or []
    return list(values.values()) if isinstance(values, Mapping) else values


def _custom_combo(node: EditorNode, sent: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the options of a list that the user wrote, and the index of the chosen one. The row has the
    index as its second value; old rows have not."""
    row = _row(node)
    saved = row[2:] if len(row) > 1 and not isinstance(row[1], str) else row[1:]
    options = list(_until_empty(saved))
    choice = sent.get("choice")
    index = options.index(choice) if choice in options else -1
    return {"index": index, **{f"option{number}": value for number, value in enumerate(options, 1)}}


def _until_empty(options: list[Any]) -> Iterator[Any]:
    """Yields the options; the last one is always empty, for the user to fill in."""
    for option in options:
        yield option
        if not option:
            return
    yield ""


def _power_loras(node: EditorNode, _sent: Mapping[str, Any]) -> Mapping[str, Any]:
    loras = [each for each in _row(node) if isinstance(each, dict) and "lora" in each]
    has_two = node.properties.get("Show Strengths") == "Separate Model & Clip"
    strengths = [
        {**lora, "strengthTwo": 1 if lora.get("strengthTwo") is None else lora["strengthTwo"]}
        if has_two
        else {name: value for name, value in lora.items() if name != "strengthTwo"}
        for lora in loras
    ]
    return {
        _LORA_HEADER: {"type": _LORA_HEADER},
        **{f"lora_{number}": lora for number, lora in enumerate(strengths, 1)},
        "➕ Add Lora": "",
    }


def _compared_images(node: EditorNode, _sent: Mapping[str, Any]) -> Mapping[str, Any]:
    images = node.values[0] if isinstance(node.values, list) and node.values else []
    images = images if isinstance(images, list) else as_object(images).get("images")
    return {"rgthree_comparer": {"images": images if isinstance(images, list) else []}}


_ROW_NAMES: Mapping[str, tuple[str, ...]] = {
    "Power Primitive (rgthree)": ("type", "value"),
    "Power Puter (rgthree)": ("outputs", "code"),
}
"""The names of the values of classes that declare no widget, for files that have no names."""
_OWN_RULES: Mapping[str, Callable[[EditorNode, Mapping[str, Any]], Mapping[str, Any]]] = {
    "CustomCombo": _custom_combo,
    "Power Lora Loader (rgthree)": _power_loras,
    "Image Comparer (rgthree)": _compared_images,
    "Display Any (rgthree)": lambda _node, _sent: {"output": ""},
    "Display Int (rgthree)": lambda _node, _sent: {"output": ""},
    "Seed (rgthree)": lambda _node, _sent: {},  # the others are buttons
}
