"""Scope of a node in an editor file: the root graph, or an instance of a subgraph."""

from dataclasses import dataclass

from comfyui_workflow.workflows.editor.file import EditorGraph, EditorNode, Mode


@dataclass(frozen=True, kw_only=True)
class Scope:
    """The root graph, or the graph of one instance of a subgraph."""

    graph: EditorGraph
    prefix: str = ""
    """Prefix of the ids of the nodes in this scope: `2:1:`."""
    instance: EditorNode | None = None
    parent: "Scope | None" = None

    def id_of(self, node: EditorNode) -> str:
        return self.prefix + node.id

    @property
    def is_muted(self) -> bool:
        """True in a muted or bypassed instance of a subgraph, at any depth."""
        scope = self
        while scope.instance and scope.parent:
            if scope.instance.mode is not Mode.ALWAYS:
                return True
            scope = scope.parent
        return False

    @property
    def enclosing_types(self) -> list[str]:
        """Types of the enclosing subgraphs, its own first."""
        types, scope = [], self
        while scope.instance and scope.parent:
            types.append(scope.instance.type)
            scope = scope.parent
        return types
