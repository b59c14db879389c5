"""The results of the last prompt's nodes, so that an unchanged node does not run again: the classic cache."""

import hashlib
import json
import math
import uuid
from dataclasses import dataclass
from typing import Any

from comfyui_workflow.sandbox.links import Graph, accepted_widgets, is_link, schema_inputs
from comfyui_workflow.sandbox.node import Folders, NodeClasses, SandboxNode


@dataclass(frozen=True, kw_only=True)
class CachedResult:
    """`ui` is {"output": ..., "meta": ...} of the node that really ran, or None if it showed nothing."""

    values: tuple[object, ...]
    ui: dict[str, Any] | None


class ResultCache:
    """Keeps the results of all nodes of one graph, by what went into them and not by their ids."""

    def __init__(self, *, folders: Folders, node_classes: NodeClasses) -> None:
        self._folders = folders
        self._node_classes = node_classes
        self._results: dict[str, CachedResult] = {}
        self._signatures: dict[str, str] = {}

    def turn_to(self, graph: Graph) -> None:
        """A new prompt: forget every result that none of its nodes would give again."""
        self._signatures = _Signatures(graph, self._folders, self._node_classes).of_all()
        wanted = set(self._signatures.values())
        self._results = {key: result for key, result in self._results.items() if key in wanted}

    def get(self, node_id: str) -> CachedResult | None:
        return self._results.get(self._signatures.get(node_id, ""))

    def put(self, node_id: str, result: CachedResult) -> None:
        self._results[self._signatures[node_id]] = result

    def clear(self) -> None:
        self._results.clear()


class _Signatures:
    """A digest per node of its class, its widget values and the digests of the nodes it is linked to."""

    def __init__(self, graph: Graph, folders: Folders, node_classes: NodeClasses) -> None:
        self._graph = graph
        self._folders = folders
        self._node_classes = node_classes
        self._known: dict[str, str] = {}

    def of_all(self) -> dict[str, str]:
        for node_id in self._graph:
            self._of(node_id)
        return {node_id: self._known[node_id] for node_id in self._graph}

    def _of(self, node_id: str) -> str:
        if node_id not in self._graph:
            return uuid.uuid4().hex  # never equal to anything
        if node_id not in self._known:
            self._known[node_id] = "part of a cycle"
            text = json.dumps(self._ingredients(node_id), sort_keys=True, default=repr)
            self._known[node_id] = hashlib.sha256(text.encode()).hexdigest()
        return self._known[node_id]

    def _ingredients(self, node_id: str) -> list[object]:
        node = self._graph[node_id]
        node_class = self._node_classes[node["class_type"]]
        inputs = node.get("inputs", {})
        input_types = node_class.input_types(self._folders)
        widgets = accepted_widgets(node_class.is_changed, inputs, schema_inputs(input_types))
        return [
            node["class_type"],
            node_id if "UNIQUE_ID" in input_types.get("hidden", {}).values() else None,
            self._change_mark(node_class, widgets),
            {name: self._input(value) for name, value in inputs.items()},
        ]

    def _change_mark(self, node_class: type[SandboxNode], widgets: dict[str, Any]) -> object:
        try:
            mark = node_class.is_changed(self._folders, **widgets)
        except Exception:  # noqa: BLE001 - a node that cannot tell runs again, as in ComfyUI
            mark = math.nan
        is_never_equal = isinstance(mark, float) and math.isnan(mark)
        return uuid.uuid4().hex if is_never_equal else mark

    def _input(self, value: object) -> object:
        return ["link", self._of(value[0]), value[1]] if is_link(value) else ["value", value]
