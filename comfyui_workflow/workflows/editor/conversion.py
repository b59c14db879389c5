"""A file of the ComfyUI editor to a graph, as the editor itself would queue it, with the node definitions of
the instance. The editor keeps these rules in code that runs in a browser; here they are as that code was
seen to act (frontend 1.27).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.workflows.editor.file import (
    NAMED_BY_PREFIX,
    EditorNode,
    Mode,
    read_editor_file,
)
from comfyui_workflow.workflows.editor.links import DRAWN_ONLY, Constant, LinkResolver, Source
from comfyui_workflow.workflows.editor.named_widgets import named_values
from comfyui_workflow.workflows.editor.number_widgets import number_in_range
from comfyui_workflow.workflows.editor.prompt_text import (
    LONGEST_NAME,
    dynamic_prompt,
    with_replacements,
)
from comfyui_workflow.workflows.editor.scope import Scope
from comfyui_workflow.workflows.editor.widget_values import (
    WidgetValue,
    in_widget,
    javascript_text,
    widget_values,
)
from comfyui_workflow.workflows.node_definitions import Definitions

PREFIX = "filename_prefix"
MOST_LETTERS = 50_000_000
"""Each instance of a subgraph has all the texts of it anew."""
_ABSENT = object()


@dataclass(frozen=True, kw_only=True)
class Queueing:
    """What is decided at the moment a workflow is queued."""

    at: datetime
    choose: Callable[[list[str]], str]
    """One of the choices of a dynamic prompt."""
    settle: Callable[[WidgetValue], Any] = lambda widget: widget.value
    """The value that a widget is queued with: its own, or another seed."""
    remote_choices: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """What a route of the instance answered that a widget takes its choices from, by the route."""


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
        self._nodes = [(scope, node) for scope in self._scopes for node in scope.graph.nodes.values()]

    def graph(self) -> dict[str, Any]:
        exported: dict[str, Any] = {}
        letters = 0
        for scope, node in self._nodes:
            if self._runs(node):
                exported[scope.id_of(node)] = one = self._export(scope, node)
                letters += sum(len(value) for value in one["inputs"].values() if isinstance(value, str))
            if letters > MOST_LETTERS and len(self._scopes) > 1:
                raise InvalidGraph("The workflow has subgraphs with more text in all than can be sent")
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
            inputs.update((name, _wrapped(value)) for name, value in named_values(node).items())
        for target in self._links.inputs(node):
            given = self._links.resolve(scope, node, target)
            match given:
                case Source():
                    inputs[target.name] = [given.node_id, given.slot]
                case Constant() if given.is_queued_as_it_is:
                    inputs[target.name] = _wrapped(_shown(own.get(target.name), given))
                case Constant() if target.name in own:
                    inputs[target.name] = self._queued(scope, node, _given(own[target.name], given))
                case Constant() if definition is None:
                    inputs[target.name] = _wrapped(given.value)
                case None if definition is None and target.link is not None:
                    inputs.pop(target.name, None)  # only a definition tells what it is given there
        title = node.title or (definition.display_name if definition else node.type)
        present = {name: value for name, value in inputs.items() if value is not _ABSENT}
        return {"inputs": present, "class_type": node.type, "_meta": {"title": title}}

    def _queued(self, scope: Scope, node: EditorNode, widget: WidgetValue) -> Any:
        """The value of a widget as it goes into a prompt."""
        if widget.value is None and not widget.is_saved:
            return _ABSENT
        if widget.definition.is_of_the_browser:
            raise InvalidGraph(
                f'Node {scope.id_of(node)} ({node.type}): its input "{widget.definition.name}" is made by a '
                "browser when the editor queues the workflow. Put a node in its place that loads a file"
            )
        value = self._remote_choice(widget, self._queueing.settle(_modern(node, widget)))
        if isinstance(value, str) and widget.definition.options.get("dynamicPrompts"):
            value = dynamic_prompt(value, self._queueing.choose)
        if isinstance(value, str) and widget.definition.name == PREFIX and node.type in NAMED_BY_PREFIX:
            value = self._file_name(scope, node, value)
        return _wrapped(value)

    def _file_name(self, scope: Scope, node: EditorNode, prefix: str) -> str:
        """Raises: InvalidGraph for one that no disk takes: many of them would not fit in memory."""
        name = with_replacements(prefix, self._queueing.at, self._widget_text)
        if name != prefix and len(name) > LONGEST_NAME:
            raise InvalidGraph(f"Node {scope.id_of(node)} ({node.type}): the name of its files is too long")
        return name

    def _remote_choice(self, widget: WidgetValue, value: Any) -> Any:
        """The editor takes the first of what the server has, where the class wants that at every refresh."""
        remote = widget.definition.remote
        choices = self._queueing.remote_choices.get(remote.route) if remote and remote.takes_first else None
        return choices[0] if choices else value

    def _widget_text(self, name: str, widget_name: str) -> str | None:
        """The value of that widget of the node of that name, or failing that of that title."""
        found = self._nodes_by_name.get(name)
        definition = self._definitions.get(found.type) if found else None
        if found is None or definition is None:
            return None
        widgets = widget_values(definition, found.values)
        if widget_name in widgets:
            return javascript_text(widgets[widget_name].value)
        controls = (widget.control for widget in widgets.values() if widget.control is not None)
        return next(controls, None) if widget_name == "control_after_generate" else None

    @cached_property
    def _nodes_by_name(self) -> Mapping[str, EditorNode]:
        """The first of each name."""
        nodes = [node for _, node in reversed(self._nodes)]
        titled = {node.title: node for node in nodes if node.title}
        return {**titled, **{node.search_name: node for node in nodes}}


def _modern(node: EditorNode, widget: WidgetValue) -> WidgetValue:
    """Samplers were called otherwise once: `sample_euler`."""
    is_sampler = node.type in ("KSampler", "KSamplerAdvanced") and widget.definition.name == "sampler_name"
    if is_sampler and isinstance(widget.value, str):
        return replace(widget, value=widget.value.removeprefix("sample_"))
    return widget


def _shown(own: WidgetValue | None, given: Constant) -> Any:
    return given.value if own is None else in_widget(replace(own, value=given.value)).value


def _wrapped(value: Any) -> Any:
    """A list would be taken for a link."""
    return {"__value__": value} if isinstance(value, list) else value


def _given(own: WidgetValue, given: Constant) -> WidgetValue:
    """By a primitive, which keeps to the range and the steps of the widget."""
    value = number_in_range(own.definition, given.value)
    return in_widget(replace(own, value=value, control=given.control, is_saved=True))


def _is_lost(value: object, exported: Mapping[str, Any]) -> bool:
    match value:
        case [str() as node_id, _]:
            return node_id not in exported
    return False
