"""Nodes that hold, join and show plain values."""

import json
import sys

from comfyui_workflow.sandbox.node import Folders, InputTypes, NodeContext, NodeResult
from comfyui_workflow.sandbox.nodes.typed_node import TypedNode, V3Node, outputs, required, text


class PrimitiveString(V3Node):
    CATEGORY = "utilities/primitive"
    DISPLAY_NAME = "Text"
    RETURN_TYPES = ("STRING",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(value=text(multiline=False))

    def run(self, context: NodeContext, *, value: str) -> NodeResult:
        return outputs(value)


class PrimitiveStringMultiline(V3Node):
    CATEGORY = "utilities/primitive"
    DISPLAY_NAME = "Text (Multiline)"
    RETURN_TYPES = ("STRING",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(value=text(multiline=True))

    def run(self, context: NodeContext, *, value: str) -> NodeResult:
        return outputs(value)


class PrimitiveInt(V3Node):
    CATEGORY = "utilities/primitive"
    DISPLAY_NAME = "Int"
    RETURN_TYPES = ("INT",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        limits = {"min": -sys.maxsize, "max": sys.maxsize, "control_after_generate": "fixed"}
        return required(value=("INT", limits))

    def run(self, context: NodeContext, *, value: int) -> NodeResult:
        return outputs(value)


class PrimitiveFloat(V3Node):
    CATEGORY = "utilities/primitive"
    DISPLAY_NAME = "Float"
    RETURN_TYPES = ("FLOAT",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(value=("FLOAT", {"min": -sys.maxsize, "max": sys.maxsize, "step": 0.1}))

    def run(self, context: NodeContext, *, value: float) -> NodeResult:
        return outputs(value)


class PrimitiveBoolean(V3Node):
    CATEGORY = "utilities/primitive"
    DISPLAY_NAME = "Boolean"
    RETURN_TYPES = ("BOOLEAN",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(value=("BOOLEAN", {}))

    def run(self, context: NodeContext, *, value: bool) -> NodeResult:
        return outputs(value)


class StringConcatenate(V3Node):
    CATEGORY = "text"
    DISPLAY_NAME = "Concatenate Text"
    DESCRIPTION = "Joins two strings."
    RETURN_TYPES = ("STRING",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            string_a=text(multiline=True),
            string_b=text(multiline=True),
            delimiter=text(multiline=False, default=""),
        )

    def run(self, context: NodeContext, *, string_a: str, string_b: str, delimiter: str) -> NodeResult:
        return outputs(string_a + delimiter + string_b)


class PreviewAny(TypedNode):
    CATEGORY = "utilities"
    DISPLAY_NAME = "Preview as Text"
    DESCRIPTION = "Shows any value as text."
    RETURN_TYPES = ("STRING",)
    OUTPUT_NODE = True

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(source=("*", {}))

    def run(self, context: NodeContext, *, source: object) -> NodeResult:
        shown = _as_text(source)
        return NodeResult(result=(shown,), ui={"text": [shown]})


def _as_text(value: object) -> str:
    if value is None or isinstance(value, str | bool | int | float):
        return str(value)
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return str(value)
