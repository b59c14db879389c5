"""Promoted widgets: widgets that a subgraph shows at its instances, and their values there."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from comfyui_workflow.workflows.editor.file import EditorGraph, EditorInput, EditorNode
from comfyui_workflow.workflows.editor.widget_values import widget_values
from comfyui_workflow.workflows.node_definitions import Definitions


class PromotedWidgets:
    """Values of promoted widgets. Each instance is read only once: without the cache, every level of nested
    subgraphs would read all levels below it again."""

    def __init__(
        self,
        subgraphs: Mapping[str, EditorGraph],
        definitions: Definitions,
        inputs: Callable[[EditorNode], list[EditorInput]],
    ) -> None:
        self._subgraphs = subgraphs
        self._definitions = definitions
        self._inputs = inputs
        self._read: dict[int, Mapping[str, Any]] = {}
        self._targets: dict[int, Mapping[str, list[tuple[EditorNode, EditorInput]]]] = {}

    def values(self, instance: EditorNode) -> Mapping[str, Any]:
        """Returns the values by the name of the subgraph's input. The k-th input that is linked to a widget
        has the k-th value of the instance; if there is none, the inner widget keeps its own value."""
        return self._cached(instance, self._instance_values)

    def _instance_values(self, instance: EditorNode) -> Mapping[str, Any]:
        graph = self._subgraphs[instance.type]
        found = {port.name: list(self._inner_values(graph, port.link_ids)) for port in graph.inputs}
        inner = {name: values[0] for name, values in found.items() if values}
        row = instance.values if isinstance(instance.values, list) else []
        return {**inner, **dict(zip(inner, row, strict=False))}

    def _inner_values(self, graph: EditorGraph, link_ids: tuple[str, ...]) -> Iterator[Any]:
        """Yields the values of the widgets at the ends of these links."""
        if id(graph) not in self._targets:
            self._targets[id(graph)] = self._linked_inputs(graph)
        for link_id in link_ids:
            for node, target in self._targets[id(graph)].get(link_id, ()):
                is_subgraph = node.type in self._subgraphs
                values = self.values(node) if is_subgraph else self._cached(node, self._node_values)
                if target.name in values:
                    yield values[target.name]

    def _linked_inputs(self, graph: EditorGraph) -> Mapping[str, list[tuple[EditorNode, EditorInput]]]:
        """Returns the linked inputs inside the subgraph; the keys are link ids."""
        found: dict[str, list[tuple[EditorNode, EditorInput]]] = {}
        for node in graph.nodes.values():
            for each in self._inputs(node):
                link = graph.links.get(each.link) if each.link is not None else None
                if link is not None and link.target_id == node.id:
                    found.setdefault(link.id, []).append((node, each))
        return found

    def _node_values(self, node: EditorNode) -> Mapping[str, Any]:
        definition = self._definitions.get(node.type)
        own = widget_values(definition, node.values) if definition else {}
        return {name: widget.value for name, widget in own.items()}

    def _cached(self, node: EditorNode, read: Callable[[EditorNode], Mapping[str, Any]]) -> Mapping[str, Any]:
        if id(node) not in self._read:
            self._read[id(node)] = read(node)
        return self._read[id(node)]
