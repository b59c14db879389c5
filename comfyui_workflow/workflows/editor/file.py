"""The file that the ComfyUI editor saves, as nodes and links; subgraphs and group nodes as graphs of their
own.

Files differ by the age of the editor: links are lists or objects, a widget that was made an input is listed
or not, ids are numbers or texts. What is read here has one shape. Ids are texts from here on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import count
from typing import Any

from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.parsing.untrusted import a_list, a_text, an_object

SUBGRAPH_INPUT = "-10"
"""The node inside a subgraph whose outputs are what comes in; and the one whose inputs go out."""
SUBGRAPH_OUTPUT = "-20"
RENAMED_CLASSES = {
    "T2IAdapterLoader": "ControlNetLoader",
    "ConditioningAverage ": "ConditioningAverage",
    "SDV_img2vid_Conditioning": "SVD_img2vid_Conditioning",
}

NAMED_BY_PREFIX = frozenset(
    {
        "SaveImage",
        "SaveVideo",
        "SaveAnimatedWEBP",
        "SaveWEBM",
        "SaveAudio",
        "SaveGLB",
        "SaveAnimatedPNG",
        "CLIPSave",
        "VAESave",
        "ModelSave",
        "LoraSave",
        "SaveLatent",
    }
)
"""The classes in whose `filename_prefix` the editor replaces `%…%`."""


class Mode(IntEnum):
    """Those that change what is run; the others are as good as `ALWAYS`."""

    ALWAYS = 0
    MUTED = 2
    BYPASSED = 4


@dataclass(frozen=True, kw_only=True)
class EditorInput:
    name: str
    type: str = "*"
    link: str | None = None
    is_widget: bool = False
    label: str | None = None
    """What its owner calls it."""


@dataclass(frozen=True, kw_only=True)
class EditorNode:
    id: str
    type: str
    title: str | None = None
    mode: Mode = Mode.ALWAYS
    inputs: tuple[EditorInput, ...] = ()
    output_types: tuple[str, ...] = ()
    values: list[Any] | dict[str, Any] = field(default_factory=list)
    """`widgets_values`: by position, or by name where a node of somebody else saves them so."""
    properties: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        titled = f' "{self.title}"' if self.title and self.title != self.type else ""
        return f"node {self.id} ({self.type}{titled})"

    @property
    def search_name(self) -> str:
        """What `%Name.widget%` calls it."""
        name = self.properties.get("Node name for S&R")
        return name if isinstance(name, str) else self.type if self.type not in NAMED_BY_PREFIX else ""


@dataclass(frozen=True, kw_only=True)
class EditorLink:
    id: str
    origin_id: str
    origin_slot: int
    target_id: str
    target_slot: int


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or an output of a subgraph as a whole."""

    name: str
    type: str
    link_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EditorGraph:
    nodes: Mapping[str, EditorNode]
    links: Mapping[str, EditorLink]
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EditorFile:
    root: EditorGraph
    subgraphs: Mapping[str, EditorGraph]
    """By the type of the nodes that stand for them."""
    group_nodes: Mapping[str, Any] = field(default_factory=dict)
    """As they are saved, by name."""


def is_editor_format(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("nodes"), list)


def read_editor_file(value: object) -> EditorFile:
    """Raises: InvalidGraph when it is not such a file."""
    if not is_editor_format(value) or not isinstance(value, dict):
        raise InvalidGraph('The workflow is not a file of the ComfyUI editor: it has no list of "nodes"')
    subgraphs = {a_text(each.get("id")) or "": _read_graph(each) for each in _subgraphs(value)}
    group_nodes = an_object(an_object(value.get("extra")).get("groupNodes"))
    return EditorFile(root=_read_graph(value), subgraphs=subgraphs, group_nodes=group_nodes)


def _subgraphs(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A definition may hold those of the subgraphs in it."""
    found = [value]
    for each in found:
        found.extend(map(an_object, a_list(an_object(each.get("definitions")).get("subgraphs"))))
    return found[1:]


def _read_graph(value: Mapping[str, Any]) -> EditorGraph:
    nodes = [read_node(node) for node in _with_ids(value)]
    links = [_read_link(link) for link in _link_list(value.get("links")) if link is not None]
    return EditorGraph(
        nodes={node.id: node for node in nodes},
        links={link.id: link for link in links},
        inputs=tuple(_read_ports(value.get("inputs"))),
        outputs=tuple(_read_ports(value.get("outputs"))),
    )


def _with_ids(graph: Mapping[str, Any]) -> Iterator[object]:
    """Its nodes. One that was saved without an id gets the next that is free."""
    last = graph.get("last_node_id", an_object(graph.get("state")).get("lastNodeId"))
    free = count(last + 1 if isinstance(last, int) else 1)
    for node in a_list(graph.get("nodes")):
        is_without = isinstance(node, dict) and node.get("id") is None
        yield {**node, "id": next(free)} if is_without else node


def read_node(value: object) -> EditorNode:
    told = an_object(value)
    node_id, class_type = _id(told.get("id")), told.get("type")
    if node_id is None or not isinstance(class_type, str):
        raise InvalidGraph("The workflow is not a file of the ComfyUI editor: a node in it has no id or type")
    values = told.get("widgets_values")
    return EditorNode(
        id=node_id,
        type=RENAMED_CLASSES.get(class_type, class_type),
        title=a_text(told.get("title")) or None,
        mode=_mode(told.get("mode")),
        inputs=tuple(_read_input(each) for each in a_list(told.get("inputs")) if isinstance(each, dict)),
        output_types=tuple(_type(an_object(each).get("type")) for each in a_list(told.get("outputs"))),
        values=values if isinstance(values, list | dict) else [],
        properties=an_object(told.get("properties")),
    )


def _read_input(value: Mapping[str, Any]) -> EditorInput:
    return EditorInput(
        name=a_text(value.get("name")) or "",
        type=_type(value.get("type")),
        link=_id(value.get("link")),
        is_widget=isinstance(value.get("widget"), dict),
        label=a_text(value.get("label")) or None,
    )


def _link_list(value: object) -> list[Any]:
    """Very old files have an object of them."""
    return list(value.values()) if isinstance(value, dict) else a_list(value)


def _read_link(value: object) -> EditorLink:
    match value:
        case [link_id, origin, origin_slot, target, target_slot, *_]:
            parts = (link_id, origin, origin_slot, target, target_slot)
        case dict():
            names = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
            parts = tuple(value.get(name) for name in names)  # type: ignore[assignment]
        case _:
            parts = (None,) * 5
    ids = [_id(part) for part in (parts[0], parts[1], parts[3])]
    if None in ids:
        raise InvalidGraph("The workflow is not a file of the ComfyUI editor: a link in it has no ends")
    return EditorLink(
        id=ids[0] or "",
        origin_id=ids[1] or "",
        origin_slot=_slot(parts[2]),
        target_id=ids[2] or "",
        target_slot=_slot(parts[4]),
    )


def _read_ports(value: object) -> Iterator[Port]:
    for port in map(an_object, a_list(value)):
        link_ids = (_id(each) for each in a_list(port.get("linkIds")))
        yield Port(
            name=a_text(port.get("name")) or "",
            type=_type(port.get("type")),
            link_ids=tuple(link_id for link_id in link_ids if link_id is not None),
        )


def _mode(value: object) -> Mode:
    return Mode(value) if value in (Mode.MUTED, Mode.BYPASSED) else Mode.ALWAYS  # type: ignore[arg-type]


def _id(value: object) -> str | None:
    """JavaScript writes 5 and 5.0 alike."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None


def _slot(value: object) -> int:
    return value if isinstance(value, int) else 0


def _type(value: object) -> str:
    """0 and nothing mean any type. A list of choices is the type of a COMBO."""
    return "COMBO" if isinstance(value, list) else a_text(value) or "*"
