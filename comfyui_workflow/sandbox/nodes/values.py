"""Nodes that hold, join and show plain values."""

import json
import sys

from comfyui_workflow.sandbox.node import Folders, InputTypes, NodeContext, NodeResult
from comfyui_workflow.sandbox.nodes.typed_node import TypedNode, outputs, required, text


class PrimitiveString(TypedNode):
    CATEGORY = "utils/primitive"
    DISPLAY_NAME = "String"
    RETURN_TYPES = ("STRING",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(value=text(multiline=False))

    def run(self, context: NodeContext, *, value: str) -> NodeResult:
        return outputs(value)


class PrimitiveStringMultiline(TypedNode):
    CATEGORY = "utils/primitive"
    DISPLAY_NAME = "String (Multiline)"
    RETURN_TYPES = ("STRING",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(value=text(multiline=True))

    def run(self, context: NodeContext, *, value: str) -> NodeResult:
        return outputs(value)


class PrimitiveInt(TypedNode):
    CATEGORY = "utils/primitive"
    DISPLAY_NAME = "Int"
    RETURN_TYPES = ("INT",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        limits = {"min": -sys.maxsize, "max": sys.maxsize, "control_after_generate": True}
        return required(value=("INT", limits))

    def run(self, context: NodeContext, *, value: int) -> NodeResult:
        return outputs(value)


class PrimitiveFloat(TypedNode):
    CATEGORY = "utils/primitive"
    DISPLAY_NAME = "Float"
    RETURN_TYPES = ("FLOAT",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(value=("FLOAT", {"min": -sys.maxsize, "max": sys.maxsize}))

    def run(self, context: NodeContext, *, value: float) -> NodeResult:
        return outputs(value)


class PrimitiveBoolean(TypedNode):
    CATEGORY = "utils/primitive"
    DISPLAY_NAME = "Boolean"
    RETURN_TYPES = ("BOOLEAN",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(value=("BOOLEAN", {}))

    def run(self, context: NodeContext, *, value: bool) -> NodeResult:
        return outputs(value)


class StringConcatenate(TypedNode):
    CATEGORY = "utils/string"
    DISPLAY_NAME = "Concatenate"
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
    CATEGORY = "utils"
    DISPLAY_NAME = "Preview Any"
    DESCRIPTION = "Shows any value as text."
    OUTPUT_NODE = True

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(source=("*", {}))

    def run(self, context: NodeContext, *, source: object) -> NodeResult:
        return NodeResult(ui={"text": [_as_text(source)]})


def _as_text(value: object) -> str:
    if value is None or isinstance(value, str | bool | int | float):
        return str(value)
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return str(value)
