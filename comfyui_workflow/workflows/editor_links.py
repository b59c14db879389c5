"""Where the links of an editor's file lead, through everything that is drawn but does not run: reroutes,
bypassed nodes, primitives, and the walls of subgraphs."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.workflows.definitions import Definitions
from comfyui_workflow.workflows.editor_file import (
    SUBGRAPH_INPUT,
    SUBGRAPH_OUTPUT,
    EditorFile,
    EditorGraph,
    EditorInput,
    EditorLink,
    EditorNode,
    Mode,
)
from comfyui_workflow.workflows.group_nodes import without_group_nodes
from comfyui_workflow.workflows.widget_values import widget_values

REROUTE = "Reroute"
PRIMITIVE = "PrimitiveNode"
DRAWN_ONLY = frozenset({REROUTE, PRIMITIVE, "Note", "MarkdownNote"})
MOST_SUBGRAPHS = 2_000
"""Subgraphs within subgraphs multiply: a small file could stand for more nodes than fit in memory."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """The file's own graph, or that of one node that stands for a subgraph."""

    graph: EditorGraph
    prefix: str = ""
    """Of the ids of the nodes in it: `2:1:`."""
    instance: EditorNode | None = None
    parent: "Scope | None" = None

    def id_of(self, node: EditorNode) -> str:
        return self.prefix + node.id

    @property
    def types_around(self) -> list[str]:
        own = [self.instance.type] if self.instance else []
        return own + (self.parent.types_around if self.parent else [])


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


class LinkResolver:
    def __init__(self, file: EditorFile, definitions: Definitions) -> None:
        self._file = without_group_nodes(file, definitions)
        self._definitions = definitions

    def scopes(self) -> list[Scope]:
        """The file's graph and every subgraph that a node in it stands for, the outer ones first.
        Raises: InvalidGraph for a subgraph that holds itself."""
        found = [Scope(graph=self._file.root)]
        for scope in found:
            found.extend(
                self._inner(scope, node) for node in scope.graph.nodes.values() if self.is_subgraph(node)
            )
            if len(found) > MOST_SUBGRAPHS:
                raise InvalidGraph(f"The workflow has more than {MOST_SUBGRAPHS} subgraphs in each other")
        return found

    def is_subgraph(self, node: EditorNode) -> bool:
        return node.type in self._file.subgraphs

    def inputs(self, node: EditorNode) -> list[EditorInput]:
        """As the editor has them when the file is open: those of the class, sockets before widgets, then what
        only the file knows. By name: the order in the file may be of another version."""
        in_file = {each.name: each for each in node.inputs}
        known = [
            replace(in_file.get(each.name, each), type=each.type, is_widget=each.is_widget)
            for each in self._declared_inputs(node)
        ]
        names = {each.name for each in known}
        return known + [each for each in node.inputs if each.name not in names]

    def resolve(self, scope: Scope, node: EditorNode, target: EditorInput) -> Source | Constant | None:
        """What the input is given; None where it is given nothing and a widget keeps its own value.
        Raises: InvalidGraph for a link that leads nowhere or in a circle."""
        place: _Place | Source | Constant | None = self._enter(scope, node, target, target.type)
        seen: set[tuple[str, str]] = set()
        at_the_wall: Constant | None = None
        while isinstance(place, _Place):
            at_the_wall = self._value_at_the_wall(place) or at_the_wall
            key = (place.scope.prefix, place.link.id)
            if key in seen:
                raise InvalidGraph(f'{_said(scope, node)}: input "{target.name}" is linked in a circle')
            seen.add(key)
            place = self._follow(place)
        return at_the_wall if place is None else place

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
        if origin.type == REROUTE and origin.inputs:
            return self._enter(place.scope, origin, origin.inputs[0], place.type, is_direct=False)
        return _primitive_value(origin) if origin.type == PRIMITIVE and place.is_direct else None

    def _outwards(self, scope: Scope, parent: Scope, instance: EditorNode, slot: int) -> _Place | None:
        if slot >= len(scope.graph.inputs):
            raise InvalidGraph(f"{_said(parent, instance)}: the subgraph has no input number {slot}")
        name = scope.graph.inputs[slot].name
        outer = next((each for each in self.inputs(instance) if each.name == name), EditorInput(name=name))
        return self._enter(parent, instance, outer, outer.type)

    def _value_at_the_wall(self, place: _Place) -> Constant | None:
        """Of the subgraph that the link comes into, for when nothing outside gives a value."""
        scope, link = place.scope, place.link
        if (
            link.origin_id != SUBGRAPH_INPUT
            or not scope.instance
            or link.origin_slot >= len(scope.graph.inputs)
        ):
            return None
        return self._promoted(scope.instance, scope.graph.inputs[link.origin_slot].name)

    def _inwards(self, place: _Place, instance: EditorNode) -> _Place | None:
        inner = self._inner(place.scope, instance)
        ports = inner.graph.outputs
        slot = place.link.origin_slot
        ids = ports[slot].link_ids if slot < len(ports) else ()
        leading = [link for link in inner.graph.links.values() if link.target_id == SUBGRAPH_OUTPUT]
        return next((replace(place, scope=inner, link=link) for link in leading if link.id in ids), None)

    def _inner(self, scope: Scope, instance: EditorNode) -> Scope:
        if instance.type in scope.types_around:
            raise InvalidGraph(f"{_said(scope, instance)}: the subgraph is a part of itself")
        graph = self._file.subgraphs[instance.type]
        return Scope(graph=graph, prefix=f"{scope.id_of(instance)}:", instance=instance, parent=scope)

    def _pass_by(self, place: _Place, bypassed: EditorNode) -> _Place | None:
        """A bypassed node hands on the input that fits: of the same slot if it does, else the first of
        exactly the type, else the first that fits at all."""
        inputs = self.inputs(bypassed)
        slot = place.link.origin_slot
        chosen = _fitting(inputs, slot, self._output_type(bypassed, slot), place.type)
        if chosen is None:
            return None
        return self._enter(place.scope, bypassed, chosen, chosen.type, is_direct=False)

    def _output_type(self, node: EditorNode, slot: int) -> str:
        definition = self._definitions.get(node.type)
        if self.is_subgraph(node):
            types = tuple(port.type for port in self._file.subgraphs[node.type].outputs)
        else:
            types = definition.outputs if definition else node.output_types
        return types[slot] if slot < len(types) else "*"

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

    def _promoted(self, instance: EditorNode, name: str) -> Constant | None:
        """The value of a subgraph's own widget: the k-th of the inputs that lead to a widget has the k-th
        value; where there is none, the widget inside keeps the one it has."""
        graph = self._file.subgraphs[instance.type]
        inner = {port.name: self._inner_widget(graph, port.link_ids) for port in graph.inputs}
        if inner.get(name) is None:
            return None
        position = [each for each, found in inner.items() if found is not None].index(name)
        if isinstance(instance.values, list) and position < len(instance.values):
            return Constant(value=instance.values[position], is_queued_as_it_is=True)
        return inner[name]

    def _inner_widget(self, graph: EditorGraph, link_ids: tuple[str, ...]) -> Constant | None:
        """The value of the first widget that these links lead to."""
        for node, target in self._targets(graph, link_ids):
            if self.is_subgraph(node):
                found = self._promoted(node, target.name)
            else:
                found = self._own_value(node, target)
            if found is not None:
                return found
        return None

    def _targets(
        self, graph: EditorGraph, link_ids: tuple[str, ...]
    ) -> Iterator[tuple[EditorNode, EditorInput]]:
        for link_id in link_ids:
            link = graph.links.get(link_id)
            node = graph.nodes.get(link.target_id) if link else None
            if node is not None:
                yield from ((node, each) for each in self.inputs(node) if each.link == link_id)

    def _own_value(self, node: EditorNode, target: EditorInput) -> Constant | None:
        definition = self._definitions.get(node.type)
        widget = widget_values(definition, node.values).get(target.name) if definition else None
        return Constant(value=widget.value, is_queued_as_it_is=True) if widget else None


def _said(scope: Scope, node: EditorNode) -> str:
    return str(replace(node, id=scope.id_of(node)))


def _primitive_value(node: EditorNode) -> Constant | None:
    match node.values:
        case [value, str() as control, *_]:
            return Constant(value=value, control=control)
        case [value, *_]:
            return Constant(value=value)
    return None


def _fitting(inputs: list[EditorInput], slot: int, given: str, wanted: str) -> EditorInput | None:
    same = inputs[slot] if slot < len(inputs) else None
    if wanted == "*":
        return same or next(iter(inputs), None)
    if same and _fits(same.type, given) and _fits(same.type, wanted):
        return same
    exact = (each for each in inputs if each.type == wanted)
    fitting = (each for each in inputs if _fits(each.type, wanted))
    return next(exact, None) or next(fitting, None)


def _fits(one: str, other: str) -> bool:
    """Types are as good as the same when one is any, or both name one of several."""
    if "*" in (one, other):
        return True
    names = [{name.strip().lower() for name in types.split(",")} for types in (one, other)]
    return not names[0].isdisjoint(names[1])
