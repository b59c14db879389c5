"""An answer of ComfyUI that is handed on as it is: Python writes numbers that JSON has not got."""

import math
from typing import Any

from comfyui_workflow.errors import ComfyUIUnavailable

DEEPEST_NESTING = 50


def in_json(value: Any, levels: int = DEEPEST_NESTING) -> Any:
    """The same, with null for NaN and Infinity. Raises: ComfyUIUnavailable for what is nested without end."""
    if levels == 0:
        raise ComfyUIUnavailable("ComfyUI answered with something that is nested too deeply")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: in_json(inner, levels - 1) for name, inner in value.items()}
    if isinstance(value, list):
        return [in_json(inner, levels - 1) for inner in value]
    return value
