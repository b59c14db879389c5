"""Comparison of our conversion with that of the real editor (frontend 1.58.1, ComfyUI 0.33.0): class and all
inputs of each node, also those that no class declares.

`pairs.json` holds small files that were made with the editor's own functions, or by hand (`p_…`), and the
graph that the editor made of each. Ids in subgraphs may differ: the editor renumbers ids that occur twice.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from comfyui_workflow.workflows.editor.conversion import QueueContext, convert
from comfyui_workflow.workflows.node_definitions import Definitions

FOLDER = Path(__file__).parent / "pairs_2026"
PAIRS = json.loads((FOLDER / "pairs.json").read_bytes())
DEFINITIONS = Definitions(json.loads((FOLDER / "object_info.json").read_bytes()))
QUEUEING = QueueContext(at=datetime(2026, 11, 30, tzinfo=UTC), choose=lambda choices: choices[0])


@pytest.mark.parametrize("name", PAIRS)
def test_the_graph_is_the_editors(name: str) -> None:
    ours = convert(PAIRS[name]["ui"], DEFINITIONS, QUEUEING)
    editors = PAIRS[name]["api"]
    if fingerprints(ours) != fingerprints(editors):
        assert inputs_of(ours) == inputs_of(editors)


def test_all_pairs_are_there() -> None:
    assert len(PAIRS) == 131


def inputs_of(graph: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    return {node_id: (node["class_type"], node["inputs"]) for node_id, node in graph.items()}


def fingerprints(graph: Mapping[str, Any]) -> Counter[str]:
    """Returns a hash of each node and everything before it, without ids."""
    known: dict[str, str] = {}

    def fingerprint(node_id: str) -> str:
        if node_id not in known:
            node = graph[node_id]
            parts = [
                (name, fingerprint(value[0]), value[1])
                if isinstance(value, list)
                else (name, json.dumps(value, sort_keys=True))
                for name, value in sorted(node["inputs"].items())
            ]
            known[node_id] = hashlib.sha256(repr((node["class_type"], parts)).encode()).hexdigest()
        return known[node_id]

    return Counter(map(fingerprint, graph))
