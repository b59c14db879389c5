"""Inputs and widget values of the nodes in an editor file, as the open editor has them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from comfyui_workflow.workflows.dynamic_inputs import is_dynamic
from comfyui_workflow.workflows.editor.browser_nodes import PRIMITIVE
from comfyui_workflow.workflows.editor.file import EditorGraph, EditorInput, EditorNode
from comfyui_workflow.workflows.editor.video_pack import is_video_node
from comfyui_workflow.workflows.editor.widget_values import NodeWidgets, node_widgets
from comfyui_workflow.workflows.node_definitions import DYNAMIC_COMBO, Definitions

_UNKNOWN = NodeWidgets()


class NodeReader:
    """Reads each node once: many links and many instances of a subgraph ask for the same one."""

    def __init__(
        self, root: EditorGraph, subgraphs: Mapping[str, EditorGraph], definitions: Definitions
    ) -> None:
        self._subgraphs = subgraphs
        self._definitions = definitions
        self._from_primitives = _values_from_primitives((root, *subgraphs.values()))
        self._widgets: dict[int, NodeWidgets] = {}
        self._inputs: dict[int, list[EditorInput]] = {}

    def is_subgraph(self, node: EditorNode) -> bool:
        return node.type in self._subgraphs

    def widgets(self, node: EditorNode) -> NodeWidgets:
        """Returns the widgets of a node by its class; nothing if the class is not known."""
        if id(node) not in self._widgets:
            definition = None if self.is_subgraph(node) else self._definitions.get(node.type)
            listed = [each.name for each in node.inputs]
            chosen = self._from_primitives.get(id(node), {})
            self._widgets[id(node)] = (
                node_widgets(definition, node.values, node.named_values, listed, chosen)
                if definition
                else _UNKNOWN
            )
        return self._widgets[id(node)]

    def inputs(self, node: EditorNode) -> list[EditorInput]:
        """Returns the inputs of a node as in the open editor: the inputs of the class, sockets before
        widgets, then inputs that are only in the file. They are matched by name, because the order in the
        file can be that of another version. An inner input that the chosen option has not got is left out."""
        if id(node) not in self._inputs:
            in_file = {each.name: each for each in node.inputs}
            known = [
                replace(in_file.get(each.name, each), type=each.type, is_widget=each.is_widget)
                for each in self._declared(node)
            ]
            names = {each.name for each in known}
            others = [each for each in node.inputs if each.name not in names and self._is_kept(node, each)]
            self._inputs[id(node)] = [
                *self._with_lost_links(node, known),
                *(each for each in others if not self._is_inner(node, each.name)),
            ]
        return self._inputs[id(node)]

    def _with_lost_links(self, node: EditorNode, known: list[EditorInput]) -> list[EditorInput]:
        """Returns the inputs with the links that the editor loses its way with: a link to an element of a
        list that the chosen option has not got ends at the input with the same place in the row of inputs, if
        this one comes before the dynamic combo. ComfyUI then says that the option is unknown."""
        definition = self._definitions.get(node.type)
        combos = [each.name for each in definition.inputs if each.type == DYNAMIC_COMBO] if definition else []
        names = [each.name for each in known]
        found = list(known)
        for slot, each in enumerate(node.inputs):
            combo = next((name for name in combos if each.name.startswith(f"{name}.")), None)
            if combo is None or each.name in names or each.name.count(".") < 2 or each.is_widget:
                continue
            if slot < names.index(combo) and found[slot].link is None:
                found[slot] = replace(found[slot], link=each.link)
        return found

    def _declared(self, node: EditorNode) -> list[EditorInput]:
        if self.is_subgraph(node):
            ports = self._subgraphs[node.type].inputs
            return [EditorInput(name=port.name, type=port.type) for port in ports]
        return [
            EditorInput(name=each.name, type=each.type, is_widget=each.is_widget)
            for each in self.widgets(node).inputs
        ]

    def _is_kept(self, node: EditorNode, other: EditorInput) -> bool:
        """False for the input of a widget that the class has no longer: the editor takes it away. Widgets of
        browser code stay, as far as the file has their values by name."""
        if not other.is_widget or self.is_subgraph(node) or node.type not in self._definitions:
            return True
        saved = node.values if isinstance(node.values, dict) else node.named_values or {}
        return other.name in saved or is_video_node(node.type)

    def _is_inner(self, node: EditorNode, name: str) -> bool:
        """True for an inner input of a dynamic input, whichever option is chosen."""
        definition = None if self.is_subgraph(node) else self._definitions.get(node.type)
        dynamic = [each.name for each in definition.inputs if is_dynamic(each)] if definition else []
        return any(name.startswith(f"{each}.") for each in dynamic)


def _values_from_primitives(graphs: Iterable[EditorGraph]) -> Mapping[int, Mapping[str, Any]]:
    """Returns the values that primitives give to inputs: by `id` of the node, then by name of the input."""
    found: dict[int, dict[str, Any]] = {}
    for graph in graphs:
        for node in graph.nodes.values():
            for each in node.inputs:
                link = graph.links.get(each.link) if each.link is not None else None
                origin = graph.nodes.get(link.origin_id) if link else None
                if origin and origin.type == PRIMITIVE and isinstance(origin.values, list) and origin.values:
                    found.setdefault(id(node), {})[each.name] = origin.values[0]
    return found
