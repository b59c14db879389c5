"""Comparison of our conversion with that of the real editor (frontend 1.27.10), for 85 files."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.workflows.editor.conversion import QueueContext, convert
from comfyui_workflow.workflows.node_definitions import Definitions

PAIRS = Path(__file__).parent / "pairs"
NAMES = sorted(path.name.removesuffix(".ui.json") for path in PAIRS.glob("*.ui.json"))
DEFINITIONS = Definitions(json.loads((PAIRS / "object_info.json").read_bytes()))
REMOTE_CHOICES = {"t_load_image_kinds_new": {"/internal/files/output": ["upa4e317.png [output]"]}}
"""Files in the output directory of the instance when the pair was recorded; for other pairs it was empty."""


def queueing(name: str) -> QueueContext:
    return QueueContext(
        at=datetime(2025, 10, 12, tzinfo=UTC),
        choose=lambda choices: choices[0],
        remote_choices=REMOTE_CHOICES.get(name, {}),
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_is_the_editors(name: str) -> None:
    ours = convert(json.loads((PAIRS / f"{name}.ui.json").read_bytes()), DEFINITIONS, queueing(name))
    editors = json.loads((PAIRS / f"{name}.api.json").read_bytes())
    assert what_runs(ours) == what_runs(editors)


def test_all_pairs_are_there() -> None:
    assert len(NAMES) == 85


def what_runs(graph: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Returns class and declared inputs of each node."""
    return {node_id: (node["class_type"], _declared(node)) for node_id, node in graph.items()}


def _declared(node: Mapping[str, Any]) -> dict[str, Any]:
    definition = DEFINITIONS.get(node["class_type"])
    return {
        name: value
        for name, value in node["inputs"].items()
        if definition is not None and definition.input(name) is not None
    }
