"""Assignment of saved values to widgets, for a node whose definition is not known."""

from collections.abc import Mapping, Sequence
from typing import Any

from comfyui_workflow.workflows.editor.file import EditorNode
from comfyui_workflow.workflows.editor.widget_values import CONTROLS
from comfyui_workflow.workflows.node_definitions import BUTTON_TYPES

_CONTROLS = frozenset({"fixed", "increment", "decrement", "randomize"})
_BUTTON = ""
_WELL_KNOWN_WIDGETS = {
    "CLIPTextEncode": ("text",),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "EmptySD3LatentImage": ("width", "height", "batch_size"),
    "KSampler": ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        "add_noise",
        "noise_seed",
        "steps",
        "cfg",
        "sampler_name",
        "scheduler",
        "start_at_step",
        "end_at_step",
        "return_with_leftover_noise",
    ),
    "LoadImage": ("image", _BUTTON),
    "LoadImageMask": ("image", "channel", _BUTTON),
    "LoadVideo": ("file", _BUTTON),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "RandomNoise": ("noise_seed",),
}
"""The widgets of classes whose widgets have not changed for years. Most files do not contain these names."""


def named_values(node: EditorNode) -> Mapping[str, Any]:
    """Returns the values by widget name. The names come from the file, or from the table of well-known
    classes. The result is empty if names and values do not match one to one: a position alone does not
    identify a widget."""
    if isinstance(node.values, dict):
        return node.values
    if node.named_values is not None:
        return {name: value for name, value in node.named_values.items() if name not in CONTROLS}
    names = _WELL_KNOWN_WIDGETS.get(node.type) or _names_in_file(node)
    types = {each.name: each.type for each in node.inputs}
    row = next((row for row in _rows(node.values) if len(row) == len(names)), [])
    found = dict(zip(names, row, strict=False))
    fits = all(_fits(value, types.get(name, "*")) for name, value in found.items())
    return {name: value for name, value in found.items() if name != _BUTTON} if fits else {}


def _names_in_file(node: EditorNode) -> tuple[str, ...]:
    return tuple(
        _BUTTON if each.type in BUTTON_TYPES else each.name for each in node.inputs if each.is_widget
    )


def _rows(values: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """Returns the values as saved, and the values without those of "control after generate"."""
    previous = [None, *values]
    return values, [
        value for at, value in enumerate(values) if not (_is_control(value) and type(previous[at]) is int)
    ]


def _is_control(value: object) -> bool:
    return isinstance(value, str) and value in _CONTROLS


def _fits(value: object, kind: str) -> bool:
    """True if the value has the type. Files that were edited by hand can have the widgets in any order."""
    match kind:
        case "INT" | "FLOAT":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "STRING":
            return isinstance(value, str)
        case "BOOLEAN":
            return isinstance(value, bool)
    return True
