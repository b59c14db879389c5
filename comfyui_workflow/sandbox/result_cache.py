"""Cache of the node results of the last prompt (ComfyUI's classic cache): an unchanged node does not run
again.

How it works: the cache key of a node is a hash of its class, its widget values, its `is_changed` value and
the keys of its sources. Node ids are part of the key only if the class has the hidden input UNIQUE_ID.
"""

import hashlib
import json
import math
import uuid
from dataclasses import dataclass
from typing import Any

from comfyui_workflow.sandbox.catalog import Catalog
from comfyui_workflow.sandbox.links import Graph, accepted_widgets, is_link
from comfyui_workflow.sandbox.node import SandboxNode


@dataclass(frozen=True, kw_only=True)
class CachedResult:
    """Result of a node. `ui` is {"output": ..., "meta": ...} of the executed node, or None."""

    values: tuple[object, ...]
    ui: dict[str, Any] | None


class ResultCache:
    """Results of all nodes of one graph, by their cache keys."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._results: dict[str, CachedResult] = {}
        self._keys: dict[str, str] = {}

    def prepare(self, graph: Graph) -> None:
        """Prepares the cache for a new prompt: computes its keys, and drops the results of all other keys."""
        self._keys = _CacheKeys(graph, self._catalog).of_all()
        wanted = set(self._keys.values())
        self._results = {key: result for key, result in self._results.items() if key in wanted}

    def get(self, node_id: str) -> CachedResult | None:
        return self._results.get(self._keys.get(node_id, ""))

    def put(self, node_id: str, result: CachedResult) -> None:
        self._results[self._keys[node_id]] = result

    def clear(self) -> None:
        self._results.clear()


class _CacheKeys:
    """Computes the cache keys of all nodes of a graph."""

    def __init__(self, graph: Graph, catalog: Catalog) -> None:
        self._graph = graph
        self._catalog = catalog
        self._computed: dict[str, str] = {}

    def of_all(self) -> dict[str, str]:
        for node_id in self._graph:
            self._of(node_id)
        return {node_id: self._computed[node_id] for node_id in self._graph}

    def _of(self, node_id: str) -> str:
        if node_id not in self._graph:
            return uuid.uuid4().hex  # not equal to any other key
        if node_id not in self._computed:
            self._computed[node_id] = "part of a cycle"
            text = json.dumps(self._key_parts(node_id), sort_keys=True, default=repr)
            self._computed[node_id] = hashlib.sha256(text.encode()).hexdigest()
        return self._computed[node_id]

    def _key_parts(self, node_id: str) -> list[object]:
        node = self._graph[node_id]
        node_class = self._catalog[node["class_type"]]
        inputs = node.get("inputs", {})
        live = self._catalog.live_inputs({**node, "inputs": inputs})
        widgets = accepted_widgets(node_class.is_changed, inputs, live.all)
        hidden = node_class.input_types(self._catalog.folders).get("hidden", {})
        return [
            node["class_type"],
            node_id if "UNIQUE_ID" in hidden.values() else None,
            self._change_key(node_class, widgets),
            {name: self._input(value) for name, value in inputs.items()},
        ]

    def _change_key(self, node_class: type[SandboxNode], widgets: dict[str, Any]) -> object:
        try:
            key = node_class.is_changed(self._catalog.folders, **widgets)
        except Exception:  # noqa: BLE001 - as in ComfyUI, the node then runs again
            key = math.nan
        is_never_equal = isinstance(key, float) and math.isnan(key)
        return uuid.uuid4().hex if is_never_equal else key

    def _input(self, value: object) -> object:
        return ["link", self._of(value[0]), value[1]] if is_link(value) else ["value", value]
