"""Where a node of the editor's file is drawn: in the file's own graph, or inside a subgraph."""

from dataclasses import dataclass

from comfyui_workflow.workflows.editor.file import EditorGraph, EditorNode


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
        """Of the subgraphs that it is in, its own first."""
        types, scope = [], self
        while scope.instance and scope.parent:
            types.append(scope.instance.type)
            scope = scope.parent
        return types
