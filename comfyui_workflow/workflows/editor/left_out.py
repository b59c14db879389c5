"""Nodes of an editor file that the conversion leaves out, because they exist in the browser only."""

from collections.abc import Iterator, Mapping
from typing import Any

from comfyui_workflow.parsing.untrusted import shown
from comfyui_workflow.workflows.editor.browser_nodes import (
    is_browser_node,
    is_of_the_editor,
    unneeded_nodes,
)
from comfyui_workflow.workflows.editor.file import EditorNode, Mode, read_editor_file
from comfyui_workflow.workflows.editor.group_nodes import SEPARATORS
from comfyui_workflow.workflows.findings import Finding, Severity
from comfyui_workflow.workflows.node_definitions import Definitions

CODE = "browser_node_left_out"
_MOST = 20


def left_out_findings(editor_file: Mapping[str, Any], definitions: Definitions) -> list[Finding]:
    """Returns a warning for each of the first `_MOST` nodes that are left out, except for those of the editor
    itself, such as notes. Raises: InvalidGraph."""
    return [
        _finding(node) for node, _ in zip(_left_out(editor_file, definitions), range(_MOST), strict=False)
    ]


def _left_out(editor_file: Mapping[str, Any], definitions: Definitions) -> Iterator[EditorNode]:
    file = read_editor_file(editor_file)
    for graph in (file.root, *file.subgraphs.values()):
        unneeded = {node.id for node in unneeded_nodes(graph, definitions)}
        for node in graph.nodes.values():
            is_left_out = node.id in unneeded or is_browser_node(node, definitions)
            is_known = (
                is_of_the_editor(node) or node.type in file.subgraphs or node.type.startswith(SEPARATORS)
            )
            if node.mode is Mode.ALWAYS and is_left_out and not is_known:
                yield node


def _finding(node: EditorNode) -> Finding:
    return Finding(
        code=CODE,
        message=f'this ComfyUI has no node class "{shown(node.type)}": the node seems to exist only in the '
        "browser, so it is left out; links through it are followed",
        severity=Severity.WARNING,
        node_id=node.id,
        class_type=node.type,
        title=node.title,
    )
