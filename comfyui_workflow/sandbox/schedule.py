"""Execution order of the nodes of a graph.

How it works: only nodes that an output needs are scheduled. A node is ready when all its sources are done. Of
the ready nodes, the one nearest to an output node is next (0 to 2 links away; all others count as 3).
"""

from collections.abc import Callable

from comfyui_workflow.sandbox.catalog import Catalog
from comfyui_workflow.sandbox.links import Graph, links_of


class NodeNotFound(Exception):
    """A link refers to a node that the graph does not have. It ends ComfyUI's worker thread."""


class DependencyCycle(Exception):
    """The remaining nodes wait for each other. `node_id` is the node that the error names."""

    def __init__(self, node_id: str) -> None:
        super().__init__("Dependency cycle detected")
        self.node_id = node_id


class Schedule:
    """Nodes still to run. Cached nodes are not waited for, so sources that only they need never run."""

    def __init__(self, graph: Graph, *, catalog: Catalog, is_cached: Callable[[str], bool]) -> None:
        self._graph = graph
        self._catalog = catalog
        self._is_cached = is_cached
        self._pending: dict[str, int] = {}  # node id -> number of sources not done yet, in order of discovery
        self._targets: dict[str, list[str]] = {}

    def add(self, output: str) -> None:
        """Adds a node and all its uncached sources. Raises: NodeNotFound."""
        waiting = [output]
        while waiting:
            node_id = waiting.pop()
            if node_id in self._pending:
                continue
            if node_id not in self._graph:
                raise NodeNotFound(f"Node {node_id} not found")
            self._pending[node_id] = 0
            self._targets[node_id] = []
            waiting += self._uncached_sources(node_id)
        self._connect()

    def next(self) -> str | None:
        """Returns the node to run now, or None if all are done. Raises: DependencyCycle."""
        if not self._pending:
            return None
        ready = [node_id for node_id, waits_for in self._pending.items() if waits_for == 0]
        if not ready:
            raise DependencyCycle(self._first_in_cycle())
        return min(ready, key=self._distance_to_output)

    def done(self, node_id: str) -> None:
        del self._pending[node_id]
        for target in self._targets.pop(node_id):
            self._pending[target] -= 1

    def _uncached_sources(self, node_id: str) -> list[str]:
        return [link[0] for link in links_of(self._graph[node_id]) if not self._is_cached(link[0])]

    def _connect(self) -> None:
        for node_id in self._pending:
            self._targets[node_id] = []
        for node_id in self._pending:
            sources = list(dict.fromkeys(self._uncached_sources(node_id)))
            self._pending[node_id] = len(sources)
            for source in sources:
                self._targets[source].append(node_id)

    def _distance_to_output(self, node_id: str) -> int:
        """Returns 0 for an output node, 1 or 2 for a node that many links before one, 3 for all others."""
        front = [node_id]
        for distance in range(3):
            if any(self._is_output(one) for one in front):
                return distance
            front = [target for one in front for target in self._targets[one]]
        return 3

    def _is_output(self, node_id: str) -> bool:
        return self._catalog[self._graph[node_id]["class_type"]].OUTPUT_NODE

    def _first_in_cycle(self) -> str:
        """Removes nodes without sources until only cycles and their dependents remain; returns the first."""
        waits_for: dict[str, set[str]] = {node_id: set() for node_id in self._pending}
        for node_id in self._pending:
            for target in self._targets[node_id]:
                waits_for[target].add(node_id)
        while free := {node_id for node_id, sources in waits_for.items() if not sources}:
            waits_for = {
                node_id: sources - free for node_id, sources in waits_for.items() if node_id not in free
            }
        return next(iter(waits_for))
