"""Conversion of group nodes, the predecessors of subgraphs, into subgraphs.

How it works: a node of type `workflow>NAME` is an instance of the group with that name in the file's
`extra.groupNodes`. Unlike an instance of a subgraph, it stores the widget values of all inner nodes in its
own `widgets_values`. So each group node becomes a separate subgraph.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.parsing.untrusted import as_list, as_object, as_text
from comfyui_workflow.workflows.editor.browser_nodes import REROUTE
from comfyui_workflow.workflows.editor.bypass import at_slot
from comfyui_workflow.workflows.editor.file import (
    SUBGRAPH_INPUT,
    SUBGRAPH_OUTPUT,
    EditorFile,
    EditorGraph,
    EditorInput,
    EditorLink,
    EditorNode,
    Port,
    read_node,
)
from comfyui_workflow.workflows.node_definitions import SEED_NAMES, Definitions, NodeDefinition

SEPARATORS = ("workflow>", "workflow/")
MOST_GROUPS = 2_000


def without_group_nodes(file: EditorFile, definitions: Definitions) -> EditorFile:
    """Returns the file with every group node replaced by a subgraph, if the file contains its definition.
    Raises: InvalidGraph if there are more than `MOST_GROUPS`."""
    if not file.group_nodes:
        return file
    expanded: dict[str, EditorGraph] = {}

    def replaced(graph: EditorGraph) -> EditorGraph:
        nodes = {
            node_id: _replaced(node, file, definitions, expanded) for node_id, node in graph.nodes.items()
        }
        return replace(graph, nodes=nodes)

    root = replaced(file.root)
    subgraphs = {name: replaced(graph) for name, graph in file.subgraphs.items()}
    return replace(file, root=root, subgraphs={**subgraphs, **expanded})


def _replaced(
    node: EditorNode, file: EditorFile, definitions: Definitions, expanded: dict[str, EditorGraph]
) -> EditorNode:
    name = next((node.type.removeprefix(each) for each in SEPARATORS if node.type.startswith(each)), None)
    if name is None or name not in file.group_nodes:
        return node
    if len(expanded) >= MOST_GROUPS:
        raise InvalidGraph(f"The workflow has more than {MOST_GROUPS} group nodes")
    graph = _Group(as_object(file.group_nodes[name]), definitions, node).graph()
    key = f"{node.type} {len(expanded)}"
    expanded[key] = graph
    return replace(node, type=key, values=[])


@dataclass(frozen=True, kw_only=True)
class _Inner:
    """A node inside a group, with its inputs (by name) and outputs (by slot) that are linked inside."""

    index: int
    node: EditorNode
    linked_inputs: dict[str, EditorLink] = field(default_factory=dict)
    linked_outputs: set[int] = field(default_factory=set)


class _Group:
    def __init__(self, raw: Mapping[str, Any], definitions: Definitions, instance: EditorNode) -> None:
        self._definitions = definitions
        self._instance = instance
        self._config = as_object(raw.get("config"))
        external = [each for each in as_list(raw.get("external")) if isinstance(each, list) and len(each) > 1]
        self._external_types = {
            (each[0], each[1]): as_text(at_slot(each, 2)) or "*"
            for each in external
            if all(isinstance(part, int) for part in each[:2])
        }
        self._inner = [
            _Inner(index=index, node=replace(read_node({**as_object(each), "id": index})))
            for index, each in enumerate(as_list(raw.get("nodes")))
        ]
        self._links: dict[str, EditorLink] = {}
        self._raw_links = [link for link in map(_inner_link, as_list(raw.get("links"))) if link]
        self._reroute_types = {
            inner.index: self._reroute_type(inner) for inner in self._inner if inner.node.type == REROUTE
        }
        for link in self._raw_links:
            self._link_inside(link)

    def graph(self) -> EditorGraph:
        inputs, outputs = tuple(self._inputs()), tuple(self._outputs())
        row = list(self._instance.values) if isinstance(self._instance.values, list) else []
        nodes = {str(inner.index): self._with_values(inner, row) for inner in self._inner}
        return EditorGraph(nodes=nodes, links=self._links, inputs=inputs, outputs=outputs)

    def _link_inside(self, link: tuple[int, int, int, int]) -> None:
        origin, origin_slot, target, target_slot = link
        if not (0 <= origin < len(self._inner) and 0 <= target < len(self._inner)):
            return
        name = self._input_name(self._inner[target], target_slot)
        if name is not None:
            self._inner[target].linked_inputs[name] = self._add_link(str(origin), origin_slot, str(target))
            self._inner[origin].linked_outputs.add(origin_slot)

    def _add_link(self, origin: str, slot: int, target: str, target_slot: int = 0) -> EditorLink:
        link = EditorLink(
            id=str(len(self._links)),
            origin_id=origin,
            origin_slot=slot,
            target_id=target,
            target_slot=target_slot,
        )
        self._links[link.id] = link
        return link

    def _input_name(self, inner: _Inner, slot: int) -> str | None:
        """Returns the name of an input by its slot in the file, because the class may have changed since."""
        if inner.index in self._reroute_types:
            return self._reroute_types[inner.index] if slot == 0 else None
        listed = [each.name for each in inner.node.inputs] or [name for name, _, _ in self._declared(inner)]
        return listed[slot] if 0 <= slot < len(listed) else None

    def _declared(self, inner: _Inner) -> list[tuple[str, str, bool]]:
        """Returns (name, type, is a widget) of each input, sockets first. The input of a reroute has no name
        in the file; in the group its name is its type."""
        if inner.index in self._reroute_types:
            kind = self._reroute_types[inner.index]
            return [(kind, kind, False)]
        definition = self._definitions.get(inner.node.type)
        if definition is None:
            return [(each.name, each.type, each.is_widget) for each in inner.node.inputs]
        inputs = [(each.name, each.type, each.is_widget) for each in definition.inputs if not each.is_button]
        return sorted(inputs, key=lambda each: each[2])

    def _reroute_type(self, reroute: _Inner) -> str:
        """Returns the type of the inputs that the reroute leads to, or else that of the output before it."""
        for origin, _, target, slot in self._raw_links:
            if origin == reroute.index and 0 <= target < len(self._inner):
                kind = at_slot(self._inner[target].node.inputs, slot)
                if kind is not None and kind.type != "*":
                    return kind.type
        for origin, slot, target, _ in self._raw_links:
            if target == reroute.index and 0 <= origin < len(self._inner):
                return at_slot(self._output_types(self._inner[origin]), slot) or "*"
        return self._external_types.get((reroute.index, 0), "*")

    def _inputs(self) -> Iterator[Port]:
        """Yields the inputs of the group: every input without a link inside, under its name in the group."""
        taken: dict[str, int] = {}
        outer = {each.name for each in self._instance.inputs}
        slot = 0
        for inner in self._inner:
            for name, kind, _ in self._declared(inner):
                if name in inner.linked_inputs or self._is_hidden(inner, "input", name):
                    continue
                unique = _unique(self._displayed_name(inner, name), inner.node, taken)
                if unique in outer:
                    link = self._add_link(SUBGRAPH_INPUT, slot, str(inner.index))
                    inner.linked_inputs[name] = link
                    yield Port(name=unique, type=kind, link_ids=(link.id,))
                    slot += 1

    def _outputs(self) -> Iterator[Port]:
        slot = 0
        for inner in self._inner:
            for inner_slot, kind in enumerate(self._output_types(inner)):
                is_inside = (
                    inner_slot in inner.linked_outputs
                    and (inner.index, inner_slot) not in self._external_types
                )
                if is_inside or self._is_hidden(inner, "output", str(inner_slot)):
                    continue
                link = self._add_link(str(inner.index), inner_slot, SUBGRAPH_OUTPUT, slot)
                yield Port(name=kind, type=kind, link_ids=(link.id,))
                slot += 1

    def _output_types(self, inner: _Inner) -> tuple[str, ...]:
        definition = self._definitions.get(inner.node.type)
        return definition.outputs if definition else inner.node.output_types

    def _displayed_name(self, inner: _Inner, name: str) -> str:
        """Returns the name that the user gave to the input, in the group or at the node."""
        chosen = as_object(as_object(self._settings(inner).get("input")).get(name)).get("name")
        label = next((each.label for each in inner.node.inputs if each.name == name), None)
        return chosen if isinstance(chosen, str) else label or name

    def _is_hidden(self, inner: _Inner, side: str, name: str) -> bool:
        setting = as_object(as_object(self._settings(inner).get(side)).get(name))
        return setting.get("visible") is False

    def _settings(self, inner: _Inner) -> Mapping[str, Any]:
        return as_object(self._config.get(str(inner.index)))

    def _with_values(self, inner: _Inner, row: list[Any]) -> EditorNode:
        """Returns the node with its values, which are removed from the front of the group's `row`."""
        links = {name: link.id for name, link in inner.linked_inputs.items()}
        inputs = tuple(
            EditorInput(name=name, type=kind, link=links.get(name), is_widget=is_widget)
            for name, kind, is_widget in self._declared(inner)
        )
        return replace(inner.node, inputs=inputs, values=self._values(inner, row))

    def _values(self, inner: _Inner, row: list[Any]) -> list[Any] | dict[str, Any]:
        definition = self._definitions.get(inner.node.type)
        if definition is None:  # such as a primitive: it keeps the number of values that it was saved with
            width = len(inner.node.values) if isinstance(inner.node.values, list) else 0
            return _take(row, width)
        values: dict[str, Any] = {}
        without_value = self._linked_inside(inner) | _converted(inner.node, definition)
        known = _known_widgets(inner.node, definition)
        for widget in (each for each in definition.inputs if each.name in known - without_value):
            has_control = widget.name in SEED_NAMES
            taken = _take(row, max(widget.row_width, 1 + has_control))
            values.update({widget.name: taken[0]} if taken else {})
        return values

    def _linked_inside(self, inner: _Inner) -> set[str]:
        return {name for name, link in inner.linked_inputs.items() if link.origin_id != SUBGRAPH_INPUT}


def _inner_link(raw: object) -> tuple[int, int, int, int] | None:
    """Returns origin, its slot, target and its slot; None if the other end is not part of the group."""
    match raw:
        case [int() as origin, int() as origin_slot, int() as target, int() as target_slot, *_]:
            return origin, origin_slot, target, target_slot
    return None


def _converted(node: EditorNode, definition: NodeDefinition) -> set[str]:
    """Returns the widgets that were converted to inputs. Old files list only those; newer files list every
    widget that the class had, and then the result is empty."""
    listed = {each.name for each in node.inputs if each.is_widget}
    return set() if _known_widgets(node, definition) <= listed else listed


def _known_widgets(node: EditorNode, definition: NodeDefinition) -> set[str]:
    """Returns the widgets that the class had when the group was made: those for which the node in it has a
    value. The group has no values for widgets that the class has got since."""
    widgets = [each for each in definition.widgets if each.row_width]
    if not isinstance(node.values, list) or not node.values:
        return {each.name for each in widgets}
    starts = accumulate((each.row_width for each in widgets), initial=0)
    return {each.name for each, start in zip(widgets, starts, strict=False) if start < len(node.values)}


def _take(row: list[Any], count: int) -> list[Any]:
    taken, row[:] = row[:count], row[count:]
    return taken


def _unique(name: str, node: EditorNode, taken: dict[str, int]) -> str:
    """Returns a unique name: a second use gets the node's name as a prefix, a third one also a number."""
    unique = name
    if name in taken:
        unique = f"{node.title or node.type} {name}"
        if unique in taken:
            unique = f"{node.title or node.type} {taken[unique] + 1} {name}"
    taken[unique] = taken.get(unique, 0) + 1
    return unique
