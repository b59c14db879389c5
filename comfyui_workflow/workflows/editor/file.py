"""Parser of editor files: nodes and links; each subgraph is a separate graph.

The format depends on the version of the editor: links are lists or objects, a widget that was converted to an
input is listed or not, ids are numbers or texts. The parser returns one form for all of them; ids are texts.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import count
from typing import Any

from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.parsing.untrusted import as_list, as_object, as_text
from comfyui_workflow.workflows.editor.video_pack import with_current_names

SUBGRAPH_INPUT = "-10"
"""Ids of two virtual nodes inside a subgraph: the outputs of the first are the inputs of the subgraph, the
inputs of the second are the outputs of the subgraph."""
SUBGRAPH_OUTPUT = "-20"
RENAMED_CLASSES = {
    "T2IAdapterLoader": "ControlNetLoader",
    "ConditioningAverage ": "ConditioningAverage",
    "SDV_img2vid_Conditioning": "SVD_img2vid_Conditioning",
}

NAMED_BY_PREFIX = frozenset(
    {
        "SaveImage",
        "SaveImageAdvanced",
        "SaveSVGNode",
        "SaveVideo",
        "SaveAnimatedWEBP",
        "SaveWEBM",
        "SaveAudio",
        "SaveAudioMP3",
        "SaveAudioOpus",
        "SaveAudioAdvanced",
        "SaveGLB",
        "Save3DAdvanced",
        "SaveGaussianSplat",
        "SavePointCloud",
        "SaveAnimatedPNG",
        "CLIPSave",
        "VAESave",
        "ModelSave",
        "LoraSave",
        "SaveLatent",
    }
)
"""The classes for which the editor replaces `%…%` in `filename_prefix`."""


class Mode(IntEnum):
    """Modes of a node that change the execution; all other modes are treated as `ALWAYS`."""

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
    """Name that the user gave to the input."""


@dataclass(frozen=True, kw_only=True)
class EditorNode:
    id: str
    type: str
    title: str | None = None
    mode: Mode = Mode.ALWAYS
    inputs: tuple[EditorInput, ...] = ()
    output_types: tuple[str, ...] = ()
    values: list[Any] | dict[str, Any] = field(default_factory=list)
    """`widgets_values`: by position, or by name (some custom nodes save them so)."""
    named_values: Mapping[str, Any] | None = None
    """`widgets_values_named`: the same values by name."""
    properties: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        titled = f' "{self.title}"' if self.title and self.title != self.type else ""
        return f"node {self.id} ({self.type}{titled})"

    @property
    def search_name(self) -> str:
        """Name of the node in `%Name.widget%`."""
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
    """An input or an output of a subgraph."""

    name: str
    type: str
    link_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EditorGraph:
    nodes: Mapping[str, EditorNode]
    links: Mapping[str, EditorLink]
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What node packs save with the graph."""


@dataclass(frozen=True, kw_only=True)
class EditorFile:
    root: EditorGraph
    subgraphs: Mapping[str, EditorGraph]
    """The keys are the types of the nodes that are instances of the subgraph."""
    group_nodes: Mapping[str, Any] = field(default_factory=dict)
    """Definitions of group nodes as saved in the file; the keys are their names."""
    version: tuple[int, ...] | None = None
    """Version of the editor that saved the file: (1, 58). None if the file does not tell it."""


def is_editor_format(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("nodes"), list)


def read_editor_file(value: object) -> EditorFile:
    """Parses an editor file. Raises: InvalidGraph if the value is not an editor file."""
    if not is_editor_format(value) or not isinstance(value, dict):
        raise InvalidGraph('The workflow is not a file of the ComfyUI editor: it has no list of "nodes"')
    subgraphs = {as_text(each.get("id")) or "": _read_graph(each) for each in _subgraphs(value)}
    extra = as_object(value.get("extra"))
    return EditorFile(
        root=_read_graph(value),
        subgraphs=subgraphs,
        group_nodes=as_object(extra.get("groupNodes")),
        version=_version(extra.get("frontendVersion")),
    )


def _version(value: object) -> tuple[int, ...] | None:
    numbers = re.match(r"(\d{1,9})\.(\d{1,9})", value) if isinstance(value, str) else None
    return (int(numbers[1]), int(numbers[2])) if numbers else None


def _subgraphs(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns all subgraph definitions; a definition can contain further ones."""
    found = [value]
    for each in found:
        found.extend(map(as_object, as_list(as_object(each.get("definitions")).get("subgraphs"))))
    return found[1:]


def _read_graph(value: Mapping[str, Any]) -> EditorGraph:
    read = _read_links(value.get("links"))
    links = {link.id: link for link in _with_unique_ids(read)}
    ends: dict[tuple[str | None, str | None], EditorLink] = {(link.id, None): link for link in links.values()}
    ends |= {(old.id, new.target_id): new for old, new in zip(read, links.values(), strict=True)}
    nodes = [_with_own_links(read_node(node), ends) for node in _nodes_with_ids(value)]
    return EditorGraph(
        nodes={node.id: node for node in nodes},
        links=links,
        inputs=tuple(_read_ports(value.get("inputs"))),
        outputs=tuple(_read_ports(value.get("outputs"))),
        extra=as_object(value.get("extra")),
    )


def _nodes_with_ids(graph: Mapping[str, Any]) -> Iterator[object]:
    """Yields the nodes of the graph. A node that was saved without an id gets the next free one."""
    last = graph.get("last_node_id", as_object(graph.get("state")).get("lastNodeId"))
    free = count(last + 1 if isinstance(last, int) else 1)
    for node in as_list(graph.get("nodes")):
        has_no_id = isinstance(node, dict) and node.get("id") is None
        yield {**node, "id": next(free)} if has_no_id else node


def read_node(value: object) -> EditorNode:
    raw = as_object(value)
    node_id, class_type = as_id(raw.get("id")), raw.get("type")
    if node_id is None or not isinstance(class_type, str):
        raise InvalidGraph("The workflow is not a file of the ComfyUI editor: a node in it has no id or type")
    values, named = with_current_names(class_type, raw.get("widgets_values")), raw.get("widgets_values_named")
    return EditorNode(
        id=node_id,
        type=RENAMED_CLASSES.get(class_type, class_type),
        title=as_text(raw.get("title")) or None,
        mode=_mode(raw.get("mode")),
        inputs=tuple(_read_input(each) for each in as_list(raw.get("inputs")) if isinstance(each, dict)),
        output_types=tuple(_type(as_object(each).get("type")) for each in as_list(raw.get("outputs"))),
        values=values if isinstance(values, list | dict) else [],
        named_values=named if isinstance(named, dict) else None,
        properties=as_object(raw.get("properties")),
    )


def _read_input(value: Mapping[str, Any]) -> EditorInput:
    return EditorInput(
        name=as_text(value.get("name")) or "",
        type=_type(value.get("type")),
        link=as_id(value.get("link")),
        is_widget=isinstance(value.get("widget"), dict),
        label=as_text(value.get("label")) or None,
    )


def _read_links(value: object) -> list[EditorLink]:
    """Parses the links; very old files store an object. Links without an id or an end are left out, as the
    editor does."""
    found = value.values() if isinstance(value, dict) else as_list(value)
    return [link for each in found if (link := _read_link(each)) is not None]


def _read_link(value: object) -> EditorLink | None:
    match value:
        case [link_id, origin, origin_slot, target, target_slot, *_]:
            parts = (link_id, origin, origin_slot, target, target_slot)
        case dict():
            names = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
            parts = tuple(value.get(name) for name in names)  # type: ignore[assignment]
        case _:
            return None
    link_id, origin, target = (as_id(part) for part in (parts[0], parts[1], parts[3]))
    if link_id is None or origin is None or target is None:
        return None
    return EditorLink(
        id=link_id,
        origin_id=origin,
        origin_slot=_slot(parts[2]),
        target_id=target,
        target_slot=_slot(parts[4]),
    )


def _with_unique_ids(links: list[EditorLink]) -> Iterator[EditorLink]:
    """Yields the links with unique ids. Files that were not saved by an editor can have an id twice."""
    seen: set[str] = set()
    for number, link in enumerate(links):
        yield replace(link, id=f"{link.id} number {number}") if link.id in seen else link
        seen.add(link.id)


_Ends = Mapping[tuple[str | None, str | None], EditorLink]
"""The links by their id in the file and the node where they end, and by their id alone."""


def _with_own_links(node: EditorNode, ends: _Ends) -> EditorNode:
    """Returns the node with the links that end at it, if an id occurs twice. As in the editor, an input whose
    link does not exist has none; if several inputs name one link, it is where the link ends."""
    links = [ends.get((each.link, node.id)) or ends.get((each.link, None)) for each in node.inputs]
    inputs = (
        replace(each, link=None if link is None or _is_elsewhere(link, slot, links) else link.id)
        for slot, (each, link) in enumerate(zip(node.inputs, links, strict=True))
    )
    return replace(node, inputs=tuple(inputs))


def _is_elsewhere(link: EditorLink, slot: int, links: list[EditorLink | None]) -> bool:
    """True if another input of the node has the link, and it ends there."""
    end = link.target_slot
    return end != slot and end < len(links) and links[end] is link


def _read_ports(value: object) -> Iterator[Port]:
    for port in map(as_object, as_list(value)):
        link_ids = (as_id(each) for each in as_list(port.get("linkIds")))
        yield Port(
            name=as_text(port.get("name")) or "",
            type=_type(port.get("type")),
            link_ids=tuple(link_id for link_id in link_ids if link_id is not None),
        )


def _mode(value: object) -> Mode:
    return Mode(value) if value in (Mode.MUTED, Mode.BYPASSED) else Mode.ALWAYS  # type: ignore[arg-type]


def as_id(value: object) -> str | None:
    """Returns an id as text. JavaScript does not distinguish 5 and 5.0."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None


def _slot(value: object) -> int:
    return value if isinstance(value, int) else 0


def _type(value: object) -> str:
    """Returns the name of a type. 0 and null mean any type; a list of choices means COMBO."""
    return "COMBO" if isinstance(value, list) else as_text(value) or "*"
