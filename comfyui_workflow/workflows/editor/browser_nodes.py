"""Nodes that exist in the browser only: the instance has no class for them.

How it works: the editor leaves them out of the graph. A link through one of them goes on at its input with
the same number, except for primitives and for Set/Get nodes, which `links.py` treats separately.
"""

from collections.abc import Iterator

from comfyui_workflow.workflows.editor.file import EditorGraph, EditorNode
from comfyui_workflow.workflows.node_definitions import Definitions

REROUTE = "Reroute"
PRIMITIVE = "PrimitiveNode"
SET, GET = "SetNode", "GetNode"
"""Invisible links of a custom node pack (KJNodes): a GetNode returns the input of the SetNode of its name."""
_CORE = frozenset({REROUTE, PRIMITIVE, "Note", "MarkdownNote"})
_OF_PACKS = frozenset(
    {
        SET,
        GET,
        "Anything Everywhere",
        "Anything Everywhere?",
        "Anything Everywhere3",
        "Prompts Everywhere",
        "Seed Everywhere",
        "Bookmark (rgthree)",
        "Fast Actions Button (rgthree)",
        "Fast Bypasser (rgthree)",
        "Fast Groups Bypasser (rgthree)",
        "Fast Groups Muter (rgthree)",
        "Fast Muter (rgthree)",
        "Label (rgthree)",
        "Mute / Bypass Relay (rgthree)",
        "Mute / Bypass Repeater (rgthree)",
        "Node Collector (rgthree)",
        "Node Combiner (rgthree)",
        "Random Unmuter (rgthree)",
        "Reroute (rgthree)",
    }
)
_OF_A_CLASS = ("Node name for S&R", "cnr_id", "aux_id")
"""Properties that the editor gives to a node that has a class."""


def is_of_the_editor(node: EditorNode) -> bool:
    """True for a node of the editor itself: nobody expects it in the graph."""
    return node.type in _CORE


def is_browser_node(node: EditorNode, definitions: Definitions) -> bool:
    """True for a node that exists in the browser only, as far as its type tells."""
    return node.type in _CORE or (node.type in _OF_PACKS and node.type not in definitions)


def unneeded_nodes(graph: EditorGraph, definitions: Definitions) -> Iterator[EditorNode]:
    """Yields the nodes that nothing needs and that show no sign of a class: they have no link, or only take
    links of any type. So are labels and switches of node packs that are not known here."""
    used = {link.origin_id for link in graph.links.values()}
    for node in graph.nodes.values():
        has_class = node.type in definitions or any(name in node.properties for name in _OF_A_CLASS)
        if has_class or node.id in used:
            continue
        if all(each.type == "*" for each in node.inputs if each.link is not None):
            yield node
