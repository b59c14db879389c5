"""A file of the ComfyUI editor to a graph, as the editor itself would queue it, with the node definitions of
the instance. The editor keeps these rules in code that runs in a browser; here they are as that code was
seen to act (frontend 1.27).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from comfyui_workflow.workflows.definitions import Definitions
from comfyui_workflow.workflows.editor_file import EditorNode, Mode, read_editor_file
from comfyui_workflow.workflows.editor_links import DRAWN_ONLY, Constant, LinkResolver, Scope, Source
from comfyui_workflow.workflows.prompt_text import dynamic_prompt, with_replacements
from comfyui_workflow.workflows.widget_values import WidgetValue, widget_values

PREFIX = "filename_prefix"
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
_ABSENT = object()


@dataclass(frozen=True, kw_only=True)
class Queueing:
    """What is decided at the moment a workflow is queued."""

    at: datetime
    choose: Callable[[list[str]], str]
    """One of the choices of a dynamic prompt."""
    settle: Callable[[WidgetValue], Any] = lambda widget: widget.value
    """The value that a widget is queued with: its own, or another seed."""


def convert(workflow: object, definitions: Definitions, queueing: Queueing) -> dict[str, Any]:
    """The graph in API format. Nodes of classes that the instance has not got are in it as far as the file
    tells of them, for the preflight to name. Raises: InvalidGraph, naming the node."""
    return _Conversion(workflow, definitions, queueing).graph()


class _Conversion:
    def __init__(self, workflow: object, definitions: Definitions, queueing: Queueing) -> None:
        self._definitions = definitions
        self._queueing = queueing
        self._links = LinkResolver(read_editor_file(workflow), definitions)
        self._scopes = self._links.scopes()

    def graph(self) -> dict[str, Any]:
        exported = {
            scope.id_of(node): self._export(scope, node)
            for scope in self._scopes
            for node in scope.graph.nodes.values()
            if self._runs(node)
        }
        for node in exported.values():  # what is linked to a muted node is given nothing at all
            kept = {name: value for name, value in node["inputs"].items() if not _is_lost(value, exported)}
            node["inputs"] = kept
        return exported

    def _runs(self, node: EditorNode) -> bool:
        is_drawn = node.type in DRAWN_ONLY or self._links.is_subgraph(node)
        return node.mode is Mode.ALWAYS and not is_drawn

    def _export(self, scope: Scope, node: EditorNode) -> dict[str, Any]:
        definition = self._definitions.get(node.type)
        own = widget_values(definition, node.values) if definition else {}
        inputs = {name: self._queued(scope, node, widget) for name, widget in own.items()}
        if definition is None:
            inputs.update(_values_by_name(node))
        for target in self._links.inputs(node):
            given = self._links.resolve(scope, node, target)
            match given:
                case Source():
                    inputs[target.name] = [given.node_id, given.slot]
                case Constant() if target.name in own:
                    inputs[target.name] = self._queued(scope, node, _given(own[target.name], given))
        title = node.title or (definition.display_name if definition else node.type)
        present = {name: value for name, value in inputs.items() if value is not _ABSENT}
        return {"inputs": present, "class_type": node.type, "_meta": {"title": title}}

    def _queued(self, scope: Scope, node: EditorNode, widget: WidgetValue) -> Any:
        """The value of a widget as it goes into a prompt. A list would be taken for a link."""
        if widget.value is None and not widget.is_saved:
            return _ABSENT
        value = self._queueing.settle(widget)
        if isinstance(value, str) and widget.definition.options.get("dynamicPrompts"):
            value = dynamic_prompt(value, self._queueing.choose)
        if isinstance(value, str) and widget.definition.name == PREFIX and node.type in NAMED_BY_PREFIX:
            value = with_replacements(value, self._queueing.at, self._widget_text)
        return {"__value__": value} if isinstance(value, list) else value

    def _widget_text(self, name: str, widget_name: str) -> str | None:
        """The value of that widget of the node of that name, or failing that of that title."""
        nodes = [node for scope in self._scopes for node in scope.graph.nodes.values()]
        named = [node for node in nodes if node.search_name == name]
        found = next(iter(named or [node for node in nodes if node.title == name]), None)
        definition = self._definitions.get(found.type) if found else None
        if found is None or definition is None:
            return None
        widget = widget_values(definition, found.values).get(widget_name)
        return None if widget is None else _javascript_text(widget.value)


def _given(own: WidgetValue, given: Constant) -> WidgetValue:
    return replace(own, value=given.value, control=given.control, is_saved=True)


def _values_by_name(node: EditorNode) -> Mapping[str, Any]:
    """Of a class that is not known: what the file itself calls by name. By position, a value could be any
    widget's."""
    return node.values if isinstance(node.values, dict) else {}


def _is_lost(value: object, exported: Mapping[str, Any]) -> bool:
    match value:
        case [str() as node_id, _]:
            return node_id not in exported
    return False


def _javascript_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)
