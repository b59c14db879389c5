"""Seeds that a node pack (rgthree) draws in the browser when the editor queues a workflow."""

from collections.abc import Callable
from typing import Any

from comfyui_workflow.workflows.editor.file import EditorNode

Draw = Callable[[int, int], int]
_CLASS = "Seed (rgthree)"
_SPECIAL = (-1, -2, -3)
"""A random seed; the last one plus one; the last one minus one. Here no last one is known: all are random."""
_LARGEST = 1125899906842624


def with_drawn_seed(node: EditorNode, value: Any, draw: Draw | None) -> Any:
    """Returns a random seed in place of a special one. `draw` is None if the workflow is not queued now."""
    if node.type != _CLASS or draw is None or value not in _SPECIAL or isinstance(value, bool):
        return value
    least = _whole(node.properties.get("randomMin"), 0)
    most = _whole(node.properties.get("randomMax"), _LARGEST)
    low = max(-_LARGEST, min(least, _LARGEST))
    drawn = draw(low, max(low, min(most, _LARGEST)))
    return 0 if drawn in _SPECIAL else drawn


def _whole(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value else default
