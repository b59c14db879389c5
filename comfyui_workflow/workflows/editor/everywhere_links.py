"""Links of the node pack "Use Everywhere": its nodes send their input to all fitting inputs that are not
linked. The browser code saves the result in `extra.ue_links`; the graph has no links for them."""

from dataclasses import replace

from comfyui_workflow.parsing.untrusted import as_list, as_object
from comfyui_workflow.workflows.editor.file import (
    EditorFile,
    EditorGraph,
    EditorLink,
    EditorNode,
    as_id,
)


def with_everywhere_links(file: EditorFile) -> EditorFile:
    """Returns the file with these links added to inputs that have none."""
    subgraphs = {name: _linked_graph(graph) for name, graph in file.subgraphs.items()}
    return replace(file, root=_linked_graph(file.root), subgraphs=subgraphs)


def _linked_graph(graph: EditorGraph) -> EditorGraph:
    saved = as_list(graph.extra.get("ue_links"))
    nodes, links = dict(graph.nodes), dict(graph.links)
    for number, each in enumerate(map(as_object, saved)):
        source, target = as_id(each.get("upstream")), nodes.get(as_id(each.get("downstream")) or "")
        from_slot, slot = each.get("upstream_slot"), each.get("downstream_slot")
        if (
            source not in nodes
            or target is None
            or not isinstance(slot, int)
            or not isinstance(from_slot, int)
        ):
            continue
        link = EditorLink(
            id=f"everywhere {number}",
            origin_id=source,
            origin_slot=from_slot,
            target_id=target.id,
            target_slot=slot,
        )
        linked = _linked(target, slot, link.id)
        if linked is not None:
            nodes[target.id], links[link.id] = linked, link
    return replace(graph, nodes=nodes, links=links) if len(links) > len(graph.links) else graph


def _linked(node: EditorNode, slot: int, link_id: str) -> EditorNode | None:
    """Returns the node with a link at this input; None if it has one, or has no such input."""
    if not 0 <= slot < len(node.inputs) or node.inputs[slot].link is not None:
        return None
    inputs = list(node.inputs)
    inputs[slot] = replace(inputs[slot], link=link_id)
    return replace(node, inputs=tuple(inputs))
