"""Conversion of an editor file into the graph that the editor itself would queue.

How it works: the file is parsed (`file.py`), links are resolved through reroutes, bypassed nodes, primitives
and subgraphs (`links.py`), saved widget values are assigned to widgets by the node definitions of the
instance (`widget_values.py`), and every node that runs is exported with its inputs. The editor implements
these rules in browser code; this module reproduces its behaviour (frontends 1.27 and 1.58; see `rules.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from comfyui_workflow.errors import InvalidGraph
from comfyui_workflow.workflows.editor.browser_nodes import is_browser_node
from comfyui_workflow.workflows.editor.everywhere_links import with_everywhere_links
from comfyui_workflow.workflows.editor.file import (
    NAMED_BY_PREFIX,
    EditorNode,
    Mode,
    read_editor_file,
)
from comfyui_workflow.workflows.editor.links import Constant, LinkResolver, Source
from comfyui_workflow.workflows.editor.named_widgets import named_values
from comfyui_workflow.workflows.editor.node_metadata import node_metadata
from comfyui_workflow.workflows.editor.number_widgets import number_in_range
from comfyui_workflow.workflows.editor.prompt_text import (
    LONGEST_NAME,
    dynamic_prompt,
    with_replacements,
)
from comfyui_workflow.workflows.editor.rules import rules_for
from comfyui_workflow.workflows.editor.scene_views import blank_view, needs_view, viewport_state
from comfyui_workflow.workflows.editor.scope import Scope
from comfyui_workflow.workflows.editor.special_seeds import Draw, with_drawn_seed
from comfyui_workflow.workflows.editor.undeclared_inputs import is_withheld, undeclared_inputs
from comfyui_workflow.workflows.editor.widget_values import (
    WidgetValue,
    as_displayed,
    javascript_text,
    widget_values,
)
from comfyui_workflow.workflows.graph import closure, sources
from comfyui_workflow.workflows.node_definitions import VIEWPORT, Definitions, NodeDefinition

PREFIX = "filename_prefix"
_WITH_FILE_NAMES = NAMED_BY_PREFIX | {"VHS_VideoCombine"}
_PICKERS = frozenset({"Select to add LoRA", "Select to add Wildcard"})
"""Lists of a node pack that insert the chosen name into a text, and then show their first entry again."""
MOST_LETTERS = 50_000_000
"""Limit for the whole graph: each instance of a subgraph repeats all texts of the subgraph."""
_ABSENT = object()
_OF_THE_BROWSER = object()
"""A value that only a browser can make, until it is known whether a node uses it."""


@dataclass(frozen=True, kw_only=True)
class QueueContext:
    """Choices that are made at the moment when a workflow is queued."""

    at: datetime
    choose: Callable[[list[str]], str]
    """Selects one of the choices of a dynamic prompt."""
    resolve_value: Callable[[WidgetValue], Any] = lambda widget: widget.value
    """Returns the value with which a widget is queued: its own, or a changed seed."""
    draw: Draw | None = None
    """Returns a random whole number between two, both included. None if the workflow is not queued now: then
    seeds that a browser would draw stay as they are."""
    remote_choices: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """The responses of the routes from which widgets get their choices; the keys are the routes."""


def convert(workflow: object, definitions: Definitions, queueing: QueueContext) -> dict[str, Any]:
    """Converts an editor file into a graph in API format.

    A node whose class the instance does not have is converted as far as the file describes it: the preflight
    then names it. Raises: InvalidGraph, naming the node.
    """
    return _Conversion(workflow, definitions, queueing).graph()


class _Conversion:
    def __init__(self, workflow: object, definitions: Definitions, queueing: QueueContext) -> None:
        self._definitions = definitions
        self._queueing = queueing
        file = with_everywhere_links(read_editor_file(workflow))
        self._rules = rules_for(file.version, definitions)
        self._links = LinkResolver(file, definitions, self._rules)
        self._scopes = self._links.scopes()
        self._nodes = [(scope, node) for scope in self._scopes for node in scope.graph.nodes.values()]
        self._unneeded = self._links.unneeded_nodes()

    def graph(self) -> dict[str, Any]:
        exported: dict[str, Any] = {}
        letters = 0
        for scope, node in self._nodes:
            if self._runs(node):
                exported[scope.id_of(node)] = one = self._export(scope, node)
                letters += sum(len(value) for value in one["inputs"].values() if isinstance(value, str))
            if letters > MOST_LETTERS and len(self._scopes) > 1:
                raise InvalidGraph(
                    f"The subgraphs of the workflow have too much text: more than {MOST_LETTERS} characters"
                )
        if self._rules.leaves_out_unneeded:
            self._leave_out_unneeded(exported)
        for node in exported.values():  # an input that is linked to a muted node gets no value
            kept = {
                name: value for name, value in node["inputs"].items() if not _is_dangling(value, exported)
            }
            node["inputs"] = kept
        for node_id, node in exported.items():
            for name in [name for name, value in node["inputs"].items() if value is _OF_THE_BROWSER]:
                node["inputs"][name] = self._value_without_browser(exported, node_id, name)
        return exported

    def _value_without_browser(self, exported: Mapping[str, Any], node_id: str, name: str) -> Any:
        """Returns a value in place of one that a browser makes. Raises: InvalidGraph."""
        if needs_view(exported, node_id, self._definitions):
            class_type = exported[node_id]["class_type"]
            raise InvalidGraph(
                f'Node {node_id} ({class_type}): its input "{name}" is made by a browser when the editor '
                "queues the workflow. Replace the node by one that loads a file"
            )
        return blank_view()

    def _leave_out_unneeded(self, exported: dict[str, Any]) -> None:
        """Removes the nodes in muted and bypassed subgraphs of which no output needs the result."""
        muted = {scope.id_of(node) for scope, node in self._nodes if scope.is_muted}
        needed_from = [
            node_id for node_id in exported if node_id not in muted or self._is_output(exported, node_id)
        ]
        needed = closure(
            needed_from, lambda node_id: sources(exported, node_id) if node_id in exported else ()
        )
        for node_id in muted - needed:
            exported.pop(node_id, None)

    def _is_output(self, exported: Mapping[str, Any], node_id: str) -> bool:
        definition = self._definitions.get(exported[node_id]["class_type"])
        return definition is None or definition.is_output

    def _runs(self, node: EditorNode) -> bool:
        if node.mode is not Mode.ALWAYS or self._links.nodes.is_subgraph(node):
            return False
        return not is_browser_node(node, self._definitions) and id(node) not in self._unneeded

    def _export(self, scope: Scope, node: EditorNode) -> dict[str, Any]:
        definition = self._definitions.get(node.type)
        inputs = self._known(scope, node, definition) if definition else self._unknown(scope, node)
        title = node.title or (definition.display_name if definition else node.type)
        return {"inputs": inputs, "class_type": node.type, "_meta": node_metadata(title, node.properties)}

    def _known(self, scope: Scope, node: EditorNode, definition: NodeDefinition) -> dict[str, Any]:
        """Returns the inputs of a node whose class is known."""
        widgets = self._links.nodes.widgets(node)
        sent = {name: each for name, each in widgets.values.items() if not is_withheld(node, each)}
        inputs = {name: self._queued_value(scope, node, each) for name, each in sent.items()}
        links: dict[str, Any] = {}
        for target in self._links.nodes.inputs(node):
            own = widgets.values.get(target.name)
            match self._links.resolve(scope, node, target):
                case Source(node_id=source, slot=slot):
                    links[target.name] = [source, slot]
                case Constant(is_verbatim=True) as given:
                    inputs[target.name] = _wrap_list(_displayed_value(own, given))
                case Constant() as given if own is not None:
                    inputs[target.name] = self._queued_value(scope, node, _with_primitive_value(own, given))
        present = {name: value for name, value in inputs.items() if value is not _ABSENT}
        others = undeclared_inputs(node, definition, widgets, present)
        wrapped = {name: _wrap_list(value) for name, value in others.items()}
        return {**present, **wrapped, **links}

    def _unknown(self, scope: Scope, node: EditorNode) -> dict[str, Any]:
        """Returns the inputs of a node whose class is not known, as far as the file describes them."""
        inputs = {name: _wrap_list(value) for name, value in named_values(node).items()}
        for target in self._links.nodes.inputs(node):
            match self._links.resolve(scope, node, target):
                case Source(node_id=source, slot=slot):
                    inputs[target.name] = [source, slot]
                case Constant() as given:
                    inputs[target.name] = _wrap_list(given.value)
                case None if target.link is not None:
                    inputs.pop(target.name, None)  # without a definition its value is unknown
        return inputs

    def _queued_value(self, scope: Scope, node: EditorNode, widget: WidgetValue) -> Any:
        """Returns the value of a widget for the prompt; or one of `_ABSENT`, `_OF_THE_BROWSER`. Raises:
        InvalidGraph."""
        if widget.value is None and not widget.is_saved:
            return _ABSENT
        if widget.definition.name == VIEWPORT and not widget.value:
            return viewport_state(node.properties) or widget.value
        if widget.definition.is_of_the_browser:
            return _OF_THE_BROWSER
        if widget.definition.name in _PICKERS:
            return widget.definition.default
        value = self._remote_choice(
            widget, self._queueing.resolve_value(_with_current_sampler_name(node, widget))
        )
        value = with_drawn_seed(node, value, self._queueing.draw)
        if isinstance(value, str) and widget.definition.options.get("dynamicPrompts"):
            value = dynamic_prompt(value, self._queueing.choose)
        if isinstance(value, str) and widget.definition.name == PREFIX and node.type in _WITH_FILE_NAMES:
            value = self._file_name(scope, node, value)
        return _with_type(widget, value)

    def _file_name(self, scope: Scope, node: EditorNode, prefix: str) -> str:
        """Returns the prefix with its `%…%` replaced. Raises: InvalidGraph if the result is longer than any
        file name can be: many of such names would not fit into memory."""
        name = with_replacements(prefix, self._queueing.at, self._widget_text)
        if name != prefix and len(name) > LONGEST_NAME:
            raise InvalidGraph(f"Node {scope.id_of(node)} ({node.type}): the name of its files is too long")
        return name

    def _remote_choice(self, widget: WidgetValue, value: Any) -> Any:
        """Returns the first remote choice if the class requires that at every refresh, else the value."""
        remote = widget.definition.remote
        choices = self._queueing.remote_choices.get(remote.route) if remote and remote.takes_first else None
        return choices[0] if choices else value

    def _widget_text(self, name: str, widget_name: str) -> str | None:
        """Returns the value of a widget as text; `name` is the search name of the node, or else its title."""
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
        """Nodes by search name or title; the first node of each name counts."""
        nodes = [node for _, node in reversed(self._nodes)]
        titled = {node.title: node for node in nodes if node.title}
        return {**titled, **{node.search_name: node for node in nodes}}


def _with_current_sampler_name(node: EditorNode, widget: WidgetValue) -> WidgetValue:
    """Replaces old sampler names: early versions of ComfyUI wrote `sample_euler` for `euler`."""
    is_sampler = node.type in ("KSampler", "KSamplerAdvanced") and widget.definition.name == "sampler_name"
    if is_sampler and isinstance(widget.value, str):
        return replace(widget, value=widget.value.removeprefix("sample_"))
    return widget


def _displayed_value(own: WidgetValue | None, given: Constant) -> Any:
    if own is None or given.value is None:
        return given.value
    return as_displayed(replace(own, value=given.value)).value


def _wrap_list(value: Any) -> Any:
    """Wraps a list: ComfyUI would read a bare list as a link."""
    return {"__value__": value} if isinstance(value, list) else value


def _with_type(widget: WidgetValue, value: Any) -> Any:
    """Wraps a value as the editor does: a curve has its type, too."""
    if widget.definition.type == "CURVE" and value is not None:
        return {"__type__": "CURVE", "__value__": value}
    return _wrap_list(value)


def _with_primitive_value(own: WidgetValue, given: Constant) -> WidgetValue:
    """Returns the widget with the value of a primitive node, adjusted to the widget's range and steps."""
    value = number_in_range(own.definition, given.value)
    return as_displayed(replace(own, value=value, control=given.control, is_saved=True))


def _is_dangling(value: object, exported: Mapping[str, Any]) -> bool:
    match value:
        case [str() as node_id, _]:
            return node_id not in exported
    return False
