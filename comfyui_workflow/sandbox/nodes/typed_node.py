"""Base class, array types and helper functions for input declarations of the node classes.

ComfyUI has two formats for input declarations, and clients see the difference. Old classes write
`("IMAGE",)`, and a bare list for a choice; new classes write `("IMAGE", {})` and
`("COMBO", {"options": [...]})`. Each class here uses the format of the real class, so some constants and
functions below have two variants.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from comfyui_workflow.sandbox.node import InputTypes, NodeContext, NodeResult, SandboxNode

Pixels = npt.NDArray[np.float32]
"""[batch, height, width, channels] in 0..1"""
Mask = npt.NDArray[np.float32]
"""[batch, height, width] in 0..1"""
Latent = dict[str, Any]
Declared = tuple[Any, ...]

LARGEST_SIDE = 16384
IMAGE: Declared = ("IMAGE",)
MASK: Declared = ("MASK",)
IMAGE_NEW: Declared = ("IMAGE", {})
MASK_NEW: Declared = ("MASK", {})


class TypedNode(SandboxNode):
    """A node whose method `run` declares its inputs as typed keyword arguments."""

    def execute(self, context: NodeContext, **inputs: Any) -> NodeResult:
        return self.run(context, **inputs)

    def run(self, context: NodeContext, *unused: Any, **inputs: Any) -> NodeResult:
        # mypy requires exactly this signature: then each subclass can declare its own keyword arguments.
        raise NotImplementedError


class V3Node(TypedNode):
    """A node whose class is written for ComfyUI's newer interface for nodes ("V3")."""

    IS_V3 = True


def outputs(*values: object) -> NodeResult:
    return NodeResult(result=values)


def required(**declared: Declared) -> InputTypes:
    return {"required": declared}


def optional(**declared: Declared) -> InputTypes:
    return {"optional": declared}


def hidden(**declared: str) -> InputTypes:
    """Declares inputs that a node reads from its context, not from the graph: plain strings, no tuples."""
    return {"hidden": cast(dict[str, Declared], declared)}


def hidden_png_texts() -> InputTypes:
    """Declares the hidden inputs of a node that writes the graph into its files."""
    return hidden(prompt="PROMPT", extra_pnginfo="EXTRA_PNGINFO")


def hidden_keys() -> InputTypes:
    """Declares the hidden inputs of a partner node."""
    return hidden(**{name: name.upper() for name in ("auth_token_comfy_org", "api_key_comfy_org")})


def integer(default: int, least: int, most: int, **more: Any) -> Declared:
    return ("INT", {"default": default, "min": least, "max": most, **more})


def number(default: float, least: float, most: float, **more: Any) -> Declared:
    return ("FLOAT", {"default": default, "min": least, "max": most, **more})


def text(**options: Any) -> Declared:
    return ("STRING", options)


def switch(default: bool, **more: Any) -> Declared:
    return ("BOOLEAN", {"default": default, **more})


def choice(options: Sequence[str], **more: Any) -> Declared:
    return (list(options), more) if more else (list(options),)


def choice_new(options: Sequence[str], **more: Any) -> Declared:
    return ("COMBO", {"multiselect": False, "options": list(options), **more})


def side(default: int = 512, least: int = 1) -> Declared:
    """Declares a width or a height in pixels."""
    return integer(default, least, LARGEST_SIDE, step=1)


def offset() -> Declared:
    """Declares a distance in pixels from the top or the left."""
    return integer(0, 0, LARGEST_SIDE, step=1)


def seed() -> Declared:
    return integer(0, 0, 2**64 - 1, control_after_generate=True)


def dynamic_choice(options: dict[str, dict[str, Declared]]) -> Declared:
    """Declares a choice of which each option has its own required inputs."""
    listed = [{"key": key, "inputs": {"required": inputs}} for key, inputs in options.items()]
    return ("COMFY_DYNAMICCOMBO_V3", {"options": listed})


def growing(element: dict[str, Declared], **template: Any) -> Declared:
    """Declares a row of inputs like the only one in `element`; `template` has `names`, or `prefix` and `max`,
    and `min`."""
    return ("COMFY_AUTOGROW_V3", {"template": {"input": {"required": element}, **template}})


def matching(template_id: str, allowed_types: str) -> Declared:
    """Declares an input of any of the allowed types ("IMAGE,MASK"); an output has the same type."""
    template = {"template_id": template_id, "allowed_types": allowed_types}
    return ("COMFY_MATCHTYPE_V3", {"template": template})
