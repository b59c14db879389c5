"""Resolution of links in an editor file.

How it works: from an input, the link is followed back to its source, through everything that the editor draws
but ComfyUI does not run: reroutes, Set/Get nodes, bypassed nodes, primitives and subgraph boundaries. The
result is an output of a node that runs (`Source`), a value (`Constant`), or nothing. Results are cached for
every link on the path, because many inputs can share a part of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.workflows.editor.browser_nodes import (
    GET,
    PRIMITIVE,
    SET,
    is_browser_node,
    unneeded_nodes,
)
from comfyui_workflow.workflows.editor.bypass import at_slot, first_fitting, same_slot
from comfyui_workflow.workflows.editor.file import (
    SUBGRAPH_INPUT,
    SUBGRAPH_OUTPUT,
    EditorFile,
    EditorGraph,
    EditorInput,
    EditorLink,
    EditorNode,
    Mode,
)
from comfyui_workflow.workflows.editor.group_nodes import without_group_nodes
from comfyui_workflow.workflows.editor.node_reader import NodeReader
from comfyui_workflow.workflows.editor.promoted_widgets import PromotedWidgets, inner_name
from comfyui_workflow.workflows.editor.rules import EditorRules
from comfyui_workflow.workflows.editor.scope import Scope
from comfyui_workflow.workflows.node_definitions import MATCH_TYPE, Definitions

MOST_NODES = 50_000
"""Nested subgraphs multiply: a small file could expand to more nodes than fit into memory."""
DEEPEST_SUBGRAPHS = 30


@dataclass(frozen=True, kw_only=True)
class Source:
    """Output of a node that runs."""

    node_id: str
    slot: int


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Value that a widget receives from a primitive node, or from a promoted widget of a subgraph."""

    value: Any
    control: str | None = None
    is_verbatim: bool = False
    """The value is not processed further: the text of a promoted widget keeps its comments and choices."""


@dataclass(frozen=True, kw_only=True)
class _Position:
    """A link on the path from an input back to its source."""

    scope: Scope
    link: EditorLink
    type: str
    is_direct: bool = True
    """True if the path has no reroute and no bypassed node so far."""

    @property
    def key(self) -> tuple[str, str, str, bool]:
        return self.scope.prefix, self.link.id, self.type, self.is_direct


_Found = Source | Constant | None


class LinkResolver:
    def __init__(self, file: EditorFile, definitions: Definitions, rules: EditorRules) -> None:
        self._file = without_group_nodes(file, definitions)
        self._definitions = definitions
        self._rules = rules
        self.nodes = NodeReader(self._file.root, self._file.subgraphs, definitions)
        self._promoted = PromotedWidgets(self._file.root, self._file.subgraphs, self.nodes)
        self._first_fitting: dict[tuple[int, str], EditorInput | None] = {}
        self._output_links: dict[int, Mapping[int, EditorLink]] = {}
        self._set_nodes: dict[int, Mapping[str, EditorNode]] = {}
        self._resolved: dict[tuple[str, str, str, bool], _Found] = {}

    def scopes(self) -> list[Scope]:
        """Returns the root graph and every instance of a subgraph that can run, outer ones first.
        Raises: InvalidGraph if a subgraph contains itself, or if there are too many nodes or levels."""
        found = [Scope(graph=self._file.root)]
        nodes = 0
        for scope in found:
            nodes += 1 + len(scope.graph.nodes)
            if nodes > MOST_NODES:
                raise InvalidGraph(f"The workflow has more than {MOST_NODES} nodes in nested subgraphs")
            instances = filter(self.nodes.is_subgraph, scope.graph.nodes.values())
            found.extend(self._inner(scope, node) for node in instances if self._is_entered(scope, node))
        return found

    def _is_entered(self, scope: Scope, instance: EditorNode) -> bool:
        """True if the nodes in an instance of a subgraph can run. Only the modes of instances in the root
        graph count, as in the editor: in a subgraph it sets the modes of the inner nodes, too."""
        is_active = instance.mode is Mode.ALWAYS or scope.parent is not None
        return is_active or not self._rules.leaves_out_muted_subgraphs

    def unneeded_nodes(self) -> set[int]:
        """Returns the nodes without a class that nothing needs, by `id`. None if no class is known at all."""
        graphs = [self._file.root, *self._file.subgraphs.values()] if any(self._definitions) else []
        found = (node for graph in graphs for node in unneeded_nodes(graph, self._definitions))
        return {id(node) for node in found if not self.nodes.is_subgraph(node)}

    def resolve(self, scope: Scope, node: EditorNode, target: EditorInput) -> Source | Constant | None:
        """Returns the source or the value of an input; None if it has none and a widget keeps its own value.
        Raises: InvalidGraph if a link has no source or is part of a cycle."""
        position: _Position | _Found = self._input_link(scope, node, target, target.type)
        passed: dict[tuple[str, str, str, bool], Constant | None] = {}
        while isinstance(position, _Position):
            if position.key in self._resolved:
                position = self._resolved[position.key]
                break
            if position.key in passed:
                raise InvalidGraph(f'{_label(scope, node)}: input "{target.name}" is linked in a circle')
            following = self._follow(position)
            is_end = following is None or not self._rules.host_values_are_final
            passed[position.key] = self._promoted_value(position) if is_end else None
            position = following
        for key, promoted in reversed(passed.items()):  # many links can share this part of the path
            position = self._resolved[key] = promoted if position is None else position
        return position

    def _input_link(
        self, scope: Scope, node: EditorNode, target: EditorInput, wanted: str, *, is_direct: bool = True
    ) -> _Position | Constant | None:
        promoted = self._promoted_without_input(scope, node, target.name)
        if promoted is not None or target.link is None:
            return promoted
        link = scope.graph.links.get(target.link)
        return _Position(scope=scope, link=link, type=wanted, is_direct=is_direct) if link else None

    def _follow(self, position: _Position) -> _Position | Source | Constant | None:
        scope, link = position.scope, position.link
        if link.origin_id == SUBGRAPH_INPUT and scope.parent and scope.instance:
            return self._leave_subgraph(scope, scope.parent, scope.instance, link.origin_slot)
        origin = scope.graph.nodes.get(link.origin_id)
        if origin is None:
            raise InvalidGraph(
                f"The workflow has a link {link.id} from node {scope.prefix}{link.origin_id}, which does not "
                "exist. Open the workflow in ComfyUI, connect the input again and save it"
            )
        if origin.type == PRIMITIVE and position.is_direct:
            return self._primitive_value(scope, origin)
        if self._rules.muted_is_unlinked and origin.mode is Mode.MUTED:
            return None
        return self._follow_node(position, origin)

    def _follow_node(self, position: _Position, origin: EditorNode) -> _Position | _Found:
        if origin.mode is Mode.BYPASSED:
            return self._follow_bypassed(position, origin)
        if is_browser_node(origin, self._definitions):
            return self._follow_virtual(position, origin)
        if self.nodes.is_subgraph(origin):
            return self._enter_subgraph(position, origin)
        return Source(node_id=position.scope.id_of(origin), slot=position.link.origin_slot)

    def _follow_virtual(self, position: _Position, origin: EditorNode) -> _Position | Constant | None:
        scope, slot = position.scope, position.link.origin_slot
        if origin.type == GET:
            scope, origin = self._set_node_of(scope, origin)
        passed_on = at_slot(origin.inputs, slot)
        if passed_on is None:
            return None
        return self._input_link(scope, origin, passed_on, position.type, is_direct=False)

    def _set_node_of(self, scope: Scope, getter: EditorNode) -> tuple[Scope, EditorNode]:
        """Returns the SetNode that belongs to a GetNode, in the same graph or in an enclosing one."""
        enclosing: Scope | None = scope
        while enclosing is not None:
            if id(enclosing.graph) not in self._set_nodes:
                self._set_nodes[id(enclosing.graph)] = _set_nodes(enclosing.graph)
            found = self._set_nodes[id(enclosing.graph)].get(_name(getter) or "")
            if found is not None:
                return enclosing, found
            enclosing = enclosing.parent
        raise InvalidGraph(f"{_label(scope, getter)}: the workflow has no SetNode with the same name")

    def _leave_subgraph(
        self, scope: Scope, parent: Scope, instance: EditorNode, slot: int
    ) -> _Position | Constant | None:
        port = at_slot(scope.graph.inputs, slot)
        if port is None:
            raise InvalidGraph(f"{_label(parent, instance)}: the subgraph has no input number {slot}")
        missing = EditorInput(name=port.name)
        outer = next((each for each in self.nodes.inputs(instance) if each.name == port.name), missing)
        is_direct = not self._rules.host_values_are_final
        return self._input_link(parent, instance, outer, outer.type, is_direct=is_direct)

    def _promoted_value(self, position: _Position) -> Constant | None:
        """Returns the value of the promoted widget if the link comes from an input of the subgraph. It is
        used if nothing outside the subgraph gives a value."""
        scope, link = position.scope, position.link
        port = at_slot(scope.graph.inputs, link.origin_slot)
        if link.origin_id != SUBGRAPH_INPUT or not scope.instance or port is None:
            return None
        values = self._promoted.of(scope.instance).of_inputs
        return Constant(value=values[port.name], is_verbatim=True) if port.name in values else None

    def _promoted_without_input(self, scope: Scope, node: EditorNode, name: str) -> Constant | None:
        """Returns the value of a promoted widget that no input of the subgraph is linked to. It can be
        promoted again outside: the outermost value counts."""
        key, value = (node.id, name), None
        while scope.instance and scope.parent:
            values = self._promoted.of(scope.instance).of_widgets
            if key not in values:
                break
            value = Constant(value=values[key], is_verbatim=True)
            key, scope = (scope.instance.id, inner_name(key)), scope.parent
        return value

    def _primitive_value(self, scope: Scope, primitive: EditorNode) -> Constant | None:
        promoted = self._promoted_without_input(scope, primitive, "")
        replaced = self._promoted.of(scope.instance).replaced if scope.instance else frozenset()
        return promoted if (primitive.id, "") in replaced else _primitive_value(primitive)

    def _enter_subgraph(self, position: _Position, instance: EditorNode) -> _Position | None:
        inner = self._inner(position.scope, instance)
        if id(inner.graph) not in self._output_links:
            self._output_links[id(inner.graph)] = _output_links(inner.graph)
        link = self._output_links[id(inner.graph)].get(position.link.origin_slot)
        return replace(position, scope=inner, link=link) if link else None

    def _inner(self, scope: Scope, instance: EditorNode) -> Scope:
        if instance.type in scope.enclosing_types:
            raise InvalidGraph(f"{_label(scope, instance)}: the subgraph is a part of itself")
        if len(scope.enclosing_types) >= DEEPEST_SUBGRAPHS:
            raise InvalidGraph(f"{_label(scope, instance)}: the subgraph is nested too deeply")
        graph = self._file.subgraphs[instance.type]
        return Scope(graph=graph, prefix=f"{scope.id_of(instance)}:", instance=instance, parent=scope)

    def _follow_bypassed(self, position: _Position, bypassed: EditorNode) -> _Position | Constant | None:
        inputs, slot, wanted = self.nodes.inputs(bypassed), position.link.origin_slot, position.type
        chosen = same_slot(inputs, slot, self._output_type(bypassed, slot), wanted)
        if chosen is None:
            key = (id(bypassed), wanted)
            if key not in self._first_fitting:
                self._first_fitting[key] = first_fitting(inputs, wanted)
            chosen = self._first_fitting[key]
        if chosen is None:
            return None
        return self._input_link(position.scope, bypassed, chosen, chosen.type, is_direct=False)

    def _output_type(self, node: EditorNode, slot: int) -> str:
        definition = self._definitions.get(node.type)
        if self.nodes.is_subgraph(node):
            types = tuple(port.type for port in self._file.subgraphs[node.type].outputs)
        else:
            types = definition.outputs if definition else node.output_types
        found = at_slot(types, slot) or "*"
        return "*" if found == MATCH_TYPE else found


def _label(scope: Scope, node: EditorNode) -> str:
    return str(replace(node, id=scope.id_of(node)))


def _set_nodes(graph: EditorGraph) -> Mapping[str, EditorNode]:
    """Returns the SetNodes by the name that they set; the first of each name counts."""
    named = [(_name(node), node) for node in graph.nodes.values() if node.type == SET]
    return {name: node for name, node in reversed(named) if name is not None}


def _name(node: EditorNode) -> str | None:
    match node.values:
        case [str() as name, *_]:
            return name
    return None


def _primitive_value(node: EditorNode) -> Constant | None:
    match node.values:
        case [value, str() as control, *_]:
            return Constant(value=value, control=control)
        case [value, *_]:
            return Constant(value=value)
    return None


def _output_links(graph: EditorGraph) -> Mapping[int, EditorLink]:
    """Returns the link to each output of the subgraph; the keys are the slots."""
    leading = [link for link in graph.links.values() if link.target_id == SUBGRAPH_OUTPUT]
    order = {link.id: position for position, link in enumerate(leading)}
    feeding = {
        slot: [order[link_id] for link_id in port.link_ids if link_id in order]
        for slot, port in enumerate(graph.outputs)
    }
    return {slot: leading[min(positions)] for slot, positions in feeding.items() if positions}
