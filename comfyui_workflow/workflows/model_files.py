"""The model files that a graph names. An instance has to load them before the graph can run."""

from collections.abc import Mapping
from pathlib import PurePosixPath

from comfyui_workflow.workflows.graph import Graph

_ENDINGS = frozenset({".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx"})


def referenced_models(graph: Graph) -> frozenset[str]:
    """Returns the input values that look like names of model files. Needs no node definitions."""
    return frozenset(
        value
        for node in graph.values()
        if isinstance(node, Mapping) and isinstance(node.get("inputs"), Mapping)
        for value in node["inputs"].values()
        if isinstance(value, str) and is_model(value)
    )


def is_model(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in _ENDINGS
