"""Where the links of an editor's file lead, through everything that is drawn but does not run: reroutes,
bypassed nodes, primitives, and the walls of subgraphs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from comfyui_workflow.errors import InvalidGraph
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
from comfyui_workflow.workflows.editor.promoted_widgets import PromotedWidgets
from comfyui_workflow.workflows.editor.scope import Scope
from comfyui_workflow.workflows.node_definitions import Definitions

REROUTE = "Reroute"
PRIMITIVE = "PrimitiveNode"
SET, GET = "SetNode", "GetNode"
"""A link without a line, from a custom node pack (KJNodes): what goes into the one comes out of the other."""
DRAWN_ONLY = frozenset({REROUTE, PRIMITIVE, SET, GET, "Note", "MarkdownNote"})
MOST_NODES = 50_000
"""Subgraphs within subgraphs multiply: a small file could stand for more nodes than fit in memory."""
DEEPEST_SUBGRAPHS = 30


@dataclass(frozen=True, kw_only=True)
class Source:
    """An output of a node that runs."""

    node_id: str
    slot: int


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A value that a widget is given from elsewhere: by a primitive, or at the wall of a subgraph."""

    value: Any
    control: str | None = None
    is_queued_as_it_is: bool = False
    """Nothing is made of it any more: texts at the wall of a subgraph keep their comments and choices."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A link on the way from an input back to its source."""

    scope: Scope
    link: EditorLink
    type: str
    is_direct: bool = True
    """No reroute and no bypassed node has been passed."""

    @property
    def key(self) -> tuple[str, str, str, bool]:
        return self.scope.prefix, self.link.id, self.type, self.is_direct


_Found = Source | Constant | None


class LinkResolver:
    def __init__(self, file: EditorFile, definitions: Definitions) -> None:
        self._file = without_group_nodes(file, definitions)
        self._definitions = definitions
        self._promoted = PromotedWidgets(self._file.subgraphs, definitions, self.inputs)
        self._inputs: dict[int, list[EditorInput]] = {}
        self._first_fitting: dict[tuple[int, str], EditorInput | None] = {}
        self._going_out: dict[int, Mapping[int, EditorLink]] = {}
        self._setters: dict[int, Mapping[str, EditorNode]] = {}
        self._resolved: dict[tuple[str, str, str, bool], _Found] = {}

    def scopes(self) -> list[Scope]:
        """The file's graph and every subgraph that a node in it stands for, the outer ones first.
        Raises: InvalidGraph for a subgraph that holds itself."""
        found = [Scope(graph=self._file.root)]
        nodes = 0
        for scope in found:
            nodes += 1 + len(scope.graph.nodes)
            if nodes > MOST_NODES:
                raise InvalidGraph(
                    f"The workflow has more than {MOST_NODES} nodes in subgraphs in each other"
                )
            found.extend(
                self._inner(scope, node) for node in scope.graph.nodes.values() if self.is_subgraph(node)
            )
        return found

    def is_subgraph(self, node: EditorNode) -> bool:
        return node.type in self._file.subgraphs

    def inputs(self, node: EditorNode) -> list[EditorInput]:
        """As the editor has them when the file is open: those of the class, sockets before widgets, then what
        only the file knows. By name: the order in the file may be of another version."""
        if id(node) not in self._inputs:
            in_file = {each.name: each for each in node.inputs}
            known = [
                replace(in_file.get(each.name, each), type=each.type, is_widget=each.is_widget)
                for each in self._declared_inputs(node)
            ]
            names = {each.name for each in known}
            self._inputs[id(node)] = known + [each for each in node.inputs if each.name not in names]
        return self._inputs[id(node)]

    def resolve(self, scope: Scope, node: EditorNode, target: EditorInput) -> Source | Constant | None:
        """What the input is given; None where it is given nothing and a widget keeps its own value.
        Raises: InvalidGraph for a link that leads nowhere or in a circle."""
        place: _Place | _Found = self._enter(scope, node, target, target.type)
        passed: dict[tuple[str, str, str, bool], Constant | None] = {}
        while isinstance(place, _Place):
            if place.key in self._resolved:
                place = self._resolved[place.key]
                break
            if place.key in passed:
                raise InvalidGraph(f'{_said(scope, node)}: input "{target.name}" is linked in a circle')
            passed[place.key] = self._value_at_the_wall(place)
            place = self._follow(place)
        for key, at_the_wall in reversed(passed.items()):  # many links may lead through the same place
            place = self._resolved[key] = at_the_wall if place is None else place
        return place

    def _enter(
        self, scope: Scope, node: EditorNode, target: EditorInput, wanted: str, *, is_direct: bool = True
    ) -> _Place | None:
        if target.link is None:
            return None
        link = scope.graph.links.get(target.link)
        if link is None:
            raise InvalidGraph(
                f'{_said(scope, node)}: input "{target.name}" has link {target.link}, which does not exist. '
                "Open the workflow in ComfyUI, connect the input again and save it"
            )
        return _Place(scope=scope, link=link, type=wanted, is_direct=is_direct)

    def _follow(self, place: _Place) -> _Place | Source | Constant | None:
        scope, link = place.scope, place.link
        if link.origin_id == SUBGRAPH_INPUT and scope.parent and scope.instance:
            return self._outwards(scope, scope.parent, scope.instance, link.origin_slot)
        origin = scope.graph.nodes.get(link.origin_id)
        if origin is None:
            raise InvalidGraph(
                f"The workflow has a link {link.id} from node {scope.prefix}{link.origin_id}, which does not "
                "exist. Open the workflow in ComfyUI, connect the input again and save it"
            )
        if origin.mode is Mode.BYPASSED and origin.type not in DRAWN_ONLY:
            return self._pass_by(place, origin)
        if self.is_subgraph(origin):
            return self._inwards(place, origin)
        if origin.type in DRAWN_ONLY:
            return self._through_drawn(place, origin)
        return Source(node_id=scope.id_of(origin), slot=link.origin_slot)

    def _through_drawn(self, place: _Place, origin: EditorNode) -> _Place | Constant | None:
        scope = place.scope
        if origin.type == GET:
            scope, origin = self._setter(scope, origin)
        if origin.type in (REROUTE, SET) and origin.inputs:
            return self._enter(scope, origin, origin.inputs[0], place.type, is_direct=False)
        return _primitive_value(origin) if origin.type == PRIMITIVE and place.is_direct else None

    def _setter(self, scope: Scope, getter: EditorNode) -> tuple[Scope, EditorNode]:
        """The node that sets what this one gets, here or in a graph around."""
        around: Scope | None = scope
        while around is not None:
            if id(around.graph) not in self._setters:
                self._setters[id(around.graph)] = _setters(around.graph)
            found = self._setters[id(around.graph)].get(_name(getter) or "")
            if found is not None:
                return around, found
            around = around.parent
        raise InvalidGraph(f"{_said(scope, getter)}: no SetNode of the workflow sets what it gets")

    def _outwards(self, scope: Scope, parent: Scope, instance: EditorNode, slot: int) -> _Place | None:
        port = at_slot(scope.graph.inputs, slot)
        if port is None:
            raise InvalidGraph(f"{_said(parent, instance)}: the subgraph has no input number {slot}")
        missing = EditorInput(name=port.name)
        outer = next((each for each in self.inputs(instance) if each.name == port.name), missing)
        return self._enter(parent, instance, outer, outer.type)

    def _value_at_the_wall(self, place: _Place) -> Constant | None:
        """Of the subgraph that the link comes into, for when nothing outside gives a value."""
        scope, link = place.scope, place.link
        port = at_slot(scope.graph.inputs, link.origin_slot)
        if link.origin_id != SUBGRAPH_INPUT or not scope.instance or port is None:
            return None
        values = self._promoted.values(scope.instance)
        return Constant(value=values[port.name], is_queued_as_it_is=True) if port.name in values else None

    def _inwards(self, place: _Place, instance: EditorNode) -> _Place | None:
        inner = self._inner(place.scope, instance)
        if id(inner.graph) not in self._going_out:
            self._going_out[id(inner.graph)] = _going_out(inner.graph)
        link = self._going_out[id(inner.graph)].get(place.link.origin_slot)
        return replace(place, scope=inner, link=link) if link else None

    def _inner(self, scope: Scope, instance: EditorNode) -> Scope:
        if instance.type in scope.types_around:
            raise InvalidGraph(f"{_said(scope, instance)}: the subgraph is a part of itself")
        if len(scope.types_around) >= DEEPEST_SUBGRAPHS:
            raise InvalidGraph(f"{_said(scope, instance)}: the subgraph is nested too deeply")
        graph = self._file.subgraphs[instance.type]
        return Scope(graph=graph, prefix=f"{scope.id_of(instance)}:", instance=instance, parent=scope)

    def _pass_by(self, place: _Place, bypassed: EditorNode) -> _Place | None:
        inputs, slot, wanted = self.inputs(bypassed), place.link.origin_slot, place.type
        chosen = same_slot(inputs, slot, self._output_type(bypassed, slot), wanted)
        if chosen is None:
            key = (id(bypassed), wanted)
            if key not in self._first_fitting:
                self._first_fitting[key] = first_fitting(inputs, wanted)
            chosen = self._first_fitting[key]
        if chosen is None:
            return None
        return self._enter(place.scope, bypassed, chosen, chosen.type, is_direct=False)

    def _output_type(self, node: EditorNode, slot: int) -> str:
        definition = self._definitions.get(node.type)
        if self.is_subgraph(node):
            types = tuple(port.type for port in self._file.subgraphs[node.type].outputs)
        else:
            types = definition.outputs if definition else node.output_types
        return at_slot(types, slot) or "*"

    def _declared_inputs(self, node: EditorNode) -> list[EditorInput]:
        if self.is_subgraph(node):
            ports = self._file.subgraphs[node.type].inputs
            return [EditorInput(name=port.name, type=port.type) for port in ports]
        definition = self._definitions.get(node.type)
        inputs = definition.inputs if definition else ()
        return [
            EditorInput(name=each.name, type=each.type, is_widget=each.is_widget)
            for each in sorted(inputs, key=lambda each: each.is_widget)
        ]


def _said(scope: Scope, node: EditorNode) -> str:
    return str(replace(node, id=scope.id_of(node)))


def _setters(graph: EditorGraph) -> Mapping[str, EditorNode]:
    """By the name of what they set; the first of a name counts."""
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


def _going_out(graph: EditorGraph) -> Mapping[int, EditorLink]:
    """The link that feeds each output of the subgraph, by its slot."""
    leading = [link for link in graph.links.values() if link.target_id == SUBGRAPH_OUTPUT]
    order = {link.id: place for place, link in enumerate(leading)}
    feeding = {
        slot: [order[link_id] for link_id in port.link_ids if link_id in order]
        for slot, port in enumerate(graph.outputs)
    }
    return {slot: leading[min(places)] for slot, places in feeding.items() if places}
