"""The model files that a graph names: what an instance has to load before it can begin."""

from collections.abc import Mapping
from pathlib import PurePosixPath

from comfyui_workflow.workflows.graph import Graph

_ENDINGS = frozenset({".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx"})


def models_named(graph: Graph) -> frozenset[str]:
    """By their names alone: nobody's node definitions are needed."""
    return frozenset(
        value
        for node in graph.values()
        if isinstance(node, Mapping) and isinstance(node.get("inputs"), Mapping)
        for value in node["inputs"].values()
        if isinstance(value, str) and is_model(value)
    )


def is_model(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in _ENDINGS
