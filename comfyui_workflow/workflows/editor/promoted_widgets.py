"""Promoted widgets: widgets that a subgraph shows at its instances, and their values there.

How it works: an input of the subgraph that is linked to a widget is a promoted widget; its value is saved at
the instance, and otherwise it is that of the widget inside. Editors of 2025 promoted other widgets without an
input: `properties.proxyWidgets` of the instance lists all promoted widgets as (id of the inner node, name of
the widget), and the values are in the order of this list. Newer editors make an input for each entry when
they open the file. So a widget can be promoted at all instances although only one of them lists it.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.parsing.untrusted import as_list, as_object
from comfyui_workflow.workflows.editor.browser_nodes import PRIMITIVE
from comfyui_workflow.workflows.editor.file import EditorGraph, EditorInput, EditorNode
from comfyui_workflow.workflows.editor.node_reader import NodeReader

_Read = TypeVar("_Read")
Widget = tuple[str, str]
"""A widget inside a subgraph: the id of its node and its name. The value of a primitive has the name ""."""
_OF_THE_INSTANCE = "-1"
"""Stands for the id of a node in an entry that names an input of the subgraph."""
_PREFIX = re.compile(r"\s*\d+\s*:\s*(.+)$", re.DOTALL)
_MARK = "proxyBypassedToSubgraphInput"
_ABSENT = object()
_UNFINISHED = object()


@dataclass(frozen=True, kw_only=True)
class Promoted:
    """The values that an instance gives to the widgets inside."""

    of_inputs: Mapping[str, Any] = field(default_factory=dict)
    """The values by the name of the subgraph's input."""
    of_widgets: Mapping[Widget, Any] = field(default_factory=dict)
    """The values of widgets that no input of the subgraph is linked to."""
    replaced: frozenset[Widget] = frozenset()
    """The primitives whose own value does not count, because their widget is promoted."""


class PromotedWidgets:
    """Values of promoted widgets. Each instance is read only once: without the cache, every level of nested
    subgraphs would read all levels below it again."""

    def __init__(self, root: EditorGraph, subgraphs: Mapping[str, EditorGraph], nodes: NodeReader) -> None:
        self._subgraphs = subgraphs
        self._nodes = nodes
        self._instances: dict[str, list[EditorNode]] = {}
        for graph in (root, *subgraphs.values()):
            for node in filter(nodes.is_subgraph, graph.nodes.values()):
                self._instances.setdefault(node.type, []).append(node)
        self._read: dict[tuple[str, object], Any] = {}

    def of(self, instance: EditorNode) -> Promoted:
        """Returns the values that this instance gives. If it has none, the inner widget keeps its own."""
        return self._once("instance", id(instance), lambda: self._of_instance(instance))

    def _of_instance(self, instance: EditorNode) -> Promoted:
        own = self._of_inputs(instance)
        listed = dict(self._listed(instance))
        promoted = self._without_input(instance.type)
        inner = {each: self._inner_value(instance.type, each) for each in promoted}
        values = {each: listed.get(each, value) for each, value in inner.items()}
        return Promoted(
            of_inputs={**own, **{key: value for key, value in listed.items() if key in own}},
            of_widgets={each: value for each, value in values.items() if value is not _ABSENT},
            replaced=frozenset(each for each in promoted if each[1] == ""),
        )

    def _of_inputs(self, instance: EditorNode) -> dict[str, Any]:
        """Returns the values by the position of the inputs that are linked to a widget."""
        inner = self._shown(instance.type)
        row = instance.values if isinstance(instance.values, list) else []
        if not row and instance.named_values:  # a name without a value has null
            named = {name: value for name, value in instance.named_values.items() if value is not None}
            return {name: named.get(name, value) for name, value in inner.items()}
        return {**inner, **dict(zip(inner, row, strict=False)), **_set_aside(instance, inner)}

    def _listed(self, instance: EditorNode) -> Iterator[tuple[str | Widget, Any]]:
        """Yields the values by the position in the list of promoted widgets: for the name of an input, or for
        a widget that no input is linked to. A primitive has one value, the first one."""
        row = instance.values if isinstance(instance.values, list) else []
        primitives: set[Widget] = set()
        entries = _entries(instance)
        for entry, value in zip(entries, row, strict=False):
            promoted = self._promoted(instance.type, entry)
            if promoted is None or promoted in primitives:
                continue
            if isinstance(promoted, tuple) and promoted[1] == "":
                primitives.add(promoted)
            yield promoted, value

    def _without_input(self, subgraph: str) -> list[Widget]:
        """Returns the widgets that an instance lists although no input is linked to them."""

        def found() -> list[Widget]:
            entries = [entry for each in self._instances.get(subgraph, ()) for entry in _entries(each)]
            promoted = (self._promoted(subgraph, entry) for entry in entries)
            return list(dict.fromkeys(each for each in promoted if isinstance(each, tuple)))

        return self._once("without input", subgraph, found)

    def _promoted(self, subgraph: str, entry: tuple[str, ...]) -> str | Widget | None:
        """Returns what an entry of the list names: an input, a widget without an input, or nothing."""
        graph = self._subgraphs[subgraph]
        for node_id, name in dict.fromkeys([(entry[0], entry[1]), (entry[0], _without_prefix(entry[1]))]):
            if node_id == _OF_THE_INSTANCE:
                return name
            linked = self._linked_widgets(subgraph).get((node_id, name))
            node = graph.nodes.get(node_id)
            if linked is not None or node is None:
                return linked
            if node.type == PRIMITIVE:
                mark = node.properties.get(_MARK)
                is_marked = isinstance(mark, str) and any(port.name == mark for port in graph.inputs)
                return mark if is_marked else self._primitive(subgraph, node_id)
            found = self._widget_of(node, name, entry[2] if len(entry) > 2 else None)
            if found is not None:
                return (node_id, found)
        return None

    def _primitive(self, subgraph: str, node_id: str) -> Widget | None:
        """Returns the value of a primitive; nothing if also another widget of it is listed, because the
        editor then leaves it as it is."""

        def found() -> Mapping[str, set[str]]:
            names: dict[str, set[str]] = {}
            for entry in (entry for each in self._instances[subgraph] for entry in _entries(each)):
                names.setdefault(entry[0], set()).add(entry[1])
            return names

        return (node_id, "") if len(self._once("entries", subgraph, found)[node_id]) == 1 else None

    def _widget_of(self, node: EditorNode, name: str, deep_id: str | None) -> str | None:
        """Returns the name of a widget of an inner node. An instance of another subgraph shows a widget under
        the name of the input, or under the name that the widget has inside."""
        if not self._nodes.is_subgraph(node):
            return name if name in self._nodes.widgets(node).values else None
        inside = {shown: widget for widget, shown in self._linked_widgets(node.type).items()}
        shown_as = {**inside, **{inner_name(each): each for each in self._without_input(node.type)}}
        for shown, widget in shown_as.items():
            if widget[1] == name and (deep_id is None or widget[0] == deep_id):
                return shown
        return name if name in self._shown(node.type) else None

    def _inner_value(self, subgraph: str, widget: Widget) -> Any:
        node = self._subgraphs[subgraph].nodes[widget[0]]
        if node.type == PRIMITIVE:
            return _ABSENT
        if self._nodes.is_subgraph(node):
            inner = {inner_name(each): value for each, value in self.of(node).of_widgets.items()}
            return {**inner, **self.of(node).of_inputs}.get(widget[1], _ABSENT)
        return self._values(node).get(widget[1], _ABSENT)

    def _shown(self, subgraph: str) -> Mapping[str, Any]:
        """Returns the inputs that are linked to a widget, with the values of the widgets."""

        def found() -> Mapping[str, Any]:
            graph = self._subgraphs[subgraph]
            values = {port.name: list(self._linked_values(subgraph, port.link_ids)) for port in graph.inputs}
            return {name: inner[0] for name, inner in values.items() if inner}

        return self._once("shown", subgraph, found)

    def _linked_values(self, subgraph: str, link_ids: tuple[str, ...]) -> Iterator[Any]:
        """Yields the values of the widgets at the ends of these links."""
        for node, target in self._targets(subgraph, link_ids):
            values = self._values(node)
            if target.name in values:
                yield values[target.name]

    def _values(self, node: EditorNode) -> Mapping[str, Any]:
        if self._nodes.is_subgraph(node):
            return self.of(node).of_inputs
        return {name: widget.value for name, widget in self._nodes.widgets(node).values.items()}

    def _linked_widgets(self, subgraph: str) -> Mapping[Widget, str]:
        """Returns the inputs of a subgraph by the widget that each shows: the first one that is linked to it.
        An input of a nested subgraph counts as a widget."""

        def found() -> Mapping[Widget, str]:
            shown: dict[Widget, str] = {}
            for port in self._subgraphs[subgraph].inputs:
                targets = (
                    (node.id, target.name)
                    for node, target in self._targets(subgraph, port.link_ids)
                    if self._nodes.is_subgraph(node) or target.name in self._nodes.widgets(node).values
                )
                first = next(targets, None)
                if first is not None:
                    shown.setdefault(first, port.name)
            return shown

        return self._once("linked", subgraph, found)

    def _targets(self, subgraph: str, link_ids: Iterable[str]) -> Iterator[tuple[EditorNode, EditorInput]]:
        """Yields the inputs inside the subgraph to which these links lead."""
        linked = self._once("targets", subgraph, lambda: self._linked_inputs(self._subgraphs[subgraph]))
        for link_id in link_ids:
            yield from linked.get(link_id, ())

    def _linked_inputs(self, graph: EditorGraph) -> Mapping[str, list[tuple[EditorNode, EditorInput]]]:
        found: dict[str, list[tuple[EditorNode, EditorInput]]] = {}
        for node in graph.nodes.values():
            for each in self._nodes.inputs(node):
                link = graph.links.get(each.link) if each.link is not None else None
                if link is not None and link.target_id == node.id:
                    found.setdefault(link.id, []).append((node, each))
        return found

    def _once(self, kind: str, key: object, read: Callable[[], _Read]) -> _Read:
        if (kind, key) not in self._read:
            self._read[kind, key] = _UNFINISHED
            self._read[kind, key] = read()
        if self._read[kind, key] is _UNFINISHED:
            raise InvalidGraph("The workflow has a subgraph that is a part of itself")
        return self._read[kind, key]  # type: ignore[no-any-return]


def inner_name(widget: Widget) -> str:
    """Returns the name that a promoted widget without an input has at an instance of its subgraph."""
    return "\0".join(("", *widget))


def _entries(instance: EditorNode) -> list[tuple[str, ...]]:
    """Returns the list of promoted widgets; an empty one if an entry in it is not understood, as in the
    editor."""
    entries = list(as_list(instance.properties.get("proxyWidgets")))
    valid = [
        tuple(each)
        for each in entries
        if isinstance(each, list) and 2 <= len(each) <= 3 and all(isinstance(part, str) for part in each)
    ]
    return valid if len(valid) == len(entries) else []


def _set_aside(instance: EditorNode, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of inputs that an editor could not assign when it opened an older file."""
    kept = [as_object(each) for each in as_list(instance.properties.get("proxyWidgetErrorQuarantine"))]
    found: dict[str, Any] = {}
    for each in reversed(kept):
        match each.get("originalEntry"):
            case [str(node_id), str(name), *_] if node_id == _OF_THE_INSTANCE and "hostValue" in each:
                found[name] = each["hostValue"]
    return {name: value for name, value in found.items() if name in inputs}


def _without_prefix(name: str) -> str:
    """Returns the name without the ids of the nodes that old editors put before it: `12: 3: seed`."""
    while prefixed := _PREFIX.match(name):
        name = prefixed[1]
    return name
