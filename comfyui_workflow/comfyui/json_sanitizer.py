"""Makes a response of ComfyUI valid JSON before it is passed on: Python also writes NaN and Infinity."""

import math
from typing import Any

from comfyui_workflow.errors import ComfyUIUnavailable

DEEPEST_NESTING = 50


def sanitize_json(value: Any, levels: int = DEEPEST_NESTING) -> Any:
    """Returns the same value with null for NaN and Infinity. Raises: ComfyUIUnavailable if it is nested
    deeper than `levels`."""
    if levels == 0:
        raise ComfyUIUnavailable("ComfyUI answered with JSON that is nested too deeply")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: sanitize_json(inner, levels - 1) for name, inner in value.items()}
    if isinstance(value, list):
        return [sanitize_json(inner, levels - 1) for inner in value]
    return value
