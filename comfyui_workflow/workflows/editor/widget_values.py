"""Assignment of saved values to the widgets of a node, by its definition.

How it works: `widgets_values` is a list with one value for each widget, in the order of the class, and
between them the values of "control after generate" and of buttons. Some custom nodes save an object by name
instead.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from comfyui_workflow.workflows.dynamic_inputs import (
    Autogrow,
    connected_type,
    default_key,
    inputs_of_option,
)
from comfyui_workflow.workflows.node_definitions import (
    AUTOGROW,
    DYNAMIC_COMBO,
    InputDefinition,
    NodeDefinition,
)

Saved = list[Any] | dict[str, Any]
CONTROLS = ("control_after_generate", "control_filter_list")


@dataclass(frozen=True, kw_only=True)
class WidgetValue:
    definition: InputDefinition
    value: Any
    """None if neither the file nor the class has a value."""
    control: str | None = None
    """Mode of "control after generate": `fixed`, `randomize`, `increment`, `decrement`."""
    is_saved: bool = True
    """True if the value is from the file, False if it is the default of the class."""


@dataclass(frozen=True, kw_only=True)
class NodeWidgets:
    """The inputs of a node as in the open editor, and the values of its widgets."""

    inputs: tuple[InputDefinition, ...] = ()
    """Sockets before widgets. The inner inputs of dynamic inputs are included, as the values choose them."""
    values: Mapping[str, WidgetValue] = field(default_factory=dict)
    """The values by widget name, without buttons."""
    names: frozenset[str] = frozenset()
    """The names of all widgets, with those of buttons and of "control after generate"."""


def widget_values(definition: NodeDefinition, saved: Saved) -> Mapping[str, WidgetValue]:
    """Returns the values by widget name, as `node_widgets` does for a node without linked inputs."""
    return node_widgets(definition, saved).values


def node_widgets(
    definition: NodeDefinition,
    saved: Saved,
    named: Mapping[str, Any] | None = None,
    listed: Collection[str] = (),
    chosen: Mapping[str, Any] = MappingProxyType({}),
) -> NodeWidgets:
    """Assigns the saved values to the widgets of a class.

    Values are returned as saved, even if the class does not allow them, except for the conversions that the
    widget itself makes (`as_displayed`). `named` are the same values by name, which newer editors save too.
    They are used only if there is no list, because the editor itself reads the list, even if the class has
    got other widgets since.
    `listed` are the names of the inputs in the file: they show how far an autogrow input has grown. `chosen`
    are the options of dynamic combos that are not chosen by the saved values.
    """
    source: _Row | _Names
    if isinstance(saved, dict):
        source = _Names(saved)
    else:
        source = _Names(named) if named is not None and not saved else _Row(definition, saved)
    reading = _Reading(source, listed, chosen)
    for each in (*definition.sockets, *definition.widgets):  # autogrow inputs get their widgets first
        reading.add(each)
    reading.add_grown()
    return reading.result()


class _Reading:
    """Inputs and values of one node, read in the order in which the editor creates the widgets."""

    def __init__(self, source: "_Row | _Names", listed: Collection[str], chosen: Mapping[str, Any]) -> None:
        self._source = source
        self._listed = listed
        self._chosen = chosen
        self._inputs: list[InputDefinition] = []
        self._values: dict[str, WidgetValue] = {}
        self._names: set[str] = set()
        self._grown: list[InputDefinition] = []

    def add(self, declared: InputDefinition) -> None:
        if declared.type == AUTOGROW:
            self._add_elements(Autogrow(declared))
            return
        self._inputs.append(replace(declared, type=connected_type(declared)))
        if not declared.is_widget:
            return
        widget = self._source.take(declared)
        self._names.update(columns(declared))
        if declared.is_button:
            return
        self._values[declared.name] = shown = as_displayed(widget)
        if declared.type == DYNAMIC_COMBO:
            self._add_option(declared, shown.value)

    def _add_option(self, combo: InputDefinition, saved: Any) -> None:
        """Adds the inner inputs of the chosen option. They have the values of a new node if the file has the
        values of another option."""
        key = self._chosen.get(combo.name, saved)
        if key == saved:
            for inner in inputs_of_option(combo, key):
                self.add(inner)
            return
        skipped = _Reading(self._source, self._listed, {})
        for inner in inputs_of_option(combo, saved):
            skipped.add(inner)
        source, self._source = self._source, _Names({})
        for inner in inputs_of_option(combo, key):
            self.add(inner)
        self._source = source

    def _add_elements(self, grow: Autogrow) -> None:
        """Adds the elements that a new node has. The others follow all other widgets, as in the editor, which
        adds them when the last element is linked."""
        first = max(1, grow.least + 1)
        for ordinal in range(first):
            for each in grow.element(ordinal):
                self.add(each)
        later = [ordinal for ordinal in grow.present(self._listed) if ordinal >= first]
        self._grown += [each for ordinal in later for each in grow.element(ordinal)]

    def add_grown(self) -> None:
        while self._grown:
            self.add(self._grown.pop(0))

    def result(self) -> NodeWidgets:
        return NodeWidgets(inputs=tuple(self._inputs), values=self._values, names=frozenset(self._names))


def as_displayed(widget: WidgetValue) -> WidgetValue:
    """Returns the value as the widget shows it: as text in a text box, as a file name in a file widget."""
    if widget.definition.is_text_box:
        return replace(widget, value=_as_text(widget.value))
    if widget.value is None and widget.definition.type in ("COMBO", DYNAMIC_COMBO):
        return replace(widget, value=_first_choice(widget.definition))
    if widget.definition.type == "COMBO" and isinstance(widget.value, dict) and "content" in widget.value:
        return replace(widget, value=widget.value["content"])  # a list with pictures, of a node pack
    if widget.definition.is_file:
        return replace(widget, value=_file_name(widget.value, widget.definition.choices))
    return widget


def javascript_text(value: object) -> str:
    """Converts a value to text as JavaScript does."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer() and abs(value) < 1e21:
            return str(int(value))
        case list():
            return ",".join(javascript_text(each) for each in _leaves(value))
        case dict():
            return "[object Object]"
    return str(value)


def _leaves(value: list[Any]) -> Iterator[Any]:
    """Yields the values of nested lists in order, at any depth; an empty list counts as null."""
    stack = [value]
    while stack:
        each = stack.pop()
        if isinstance(each, list) and each:
            stack.extend(reversed(each))
        else:
            yield None if each == [] else each


def columns(widget: InputDefinition) -> list[str]:
    """Returns the names of the values that the editor saves for a widget, its own first."""
    if widget.type == "BOUNDING_BOX":
        return [widget.name, "x", "y", "width", "height"]
    return [widget.name, *CONTROLS[: widget.control_count]]


class _Names:
    """Saved values by name."""

    def __init__(self, saved: Mapping[str, Any]) -> None:
        self._saved = saved

    def take(self, widget: InputDefinition) -> WidgetValue:
        is_saved = widget.name in self._saved
        value = self._saved[widget.name] if is_saved else default_value(widget)
        control = self._saved.get(CONTROLS[0]) if widget.control_count else None
        return WidgetValue(
            definition=widget,
            value=value,
            control=control if isinstance(control, str) else None,
            is_saved=is_saved,
        )


class _Row:
    """Saved values by position."""

    def __init__(self, definition: NodeDefinition, saved: list[Any]) -> None:
        self._saved = _without_sockets(definition, saved)
        self._position = 0
        is_upload = any(each.is_file for each in definition.inputs)
        self._has_button_between = not definition.has_input_order and is_upload
        self._buttons_before = {"LOAD_3D": 3} if definition.class_type == "Load3D" else {}

    def take(self, widget: InputDefinition) -> WidgetValue:
        if self._has_button_between and not widget.is_required:
            self._position, self._has_button_between = self._position + 1, False
        self._position += self._buttons_before.get(widget.type, 0)
        width = widget.row_width
        is_saved = width > 0 and self._position < len(self._saved)
        value = self._saved[self._position] if is_saved else default_value(widget)
        after = self._saved[self._position + 1 : self._position + 1 + widget.control_count]
        self._position += width
        control = after[0] if after and isinstance(after[0], str) else None
        return WidgetValue(definition=widget, value=value, control=control, is_saved=is_saved)


def _first_choice(widget: InputDefinition) -> Any:
    """Returns the choice that the editor shows in place of null."""
    if widget.type == DYNAMIC_COMBO:
        return default_key(widget)
    return widget.choices[0] if widget.choices and not widget.options.get("multi_select") else None


def default_value(widget: InputDefinition) -> Any:
    """Returns the value of a widget in a new node."""
    return default_key(widget) if widget.type == DYNAMIC_COMBO else widget.default


def _without_sockets(definition: NodeDefinition, saved: list[Any]) -> list[Any]:
    """Returns the saved values without those of inputs that the class has changed to sockets (`forceInput`).

    Old files have a value for each of those too. Like the editor, this function detects such a file by the
    number of values, and then removes values by the position of the input, without counting the values of
    "control after generate".
    """
    inputs = [each for each in definition.inputs if each.is_widget or each.is_forced]
    buttons = 1 if any(each.is_file for each in definition.inputs) else 0
    if len(saved) != sum(1 + each.is_called_seed for each in inputs) + buttons:
        return saved
    forced = {index for index, each in enumerate(inputs) if each.is_forced}
    return [value for index, value in enumerate(saved) if index not in forced]


def _as_text(value: object) -> str:
    return re.sub(r"\r\n?", "\n", javascript_text(value))


def _file_name(value: Any, choices: tuple[Any, ...] | None) -> Any:
    """Returns the name of a file. Some versions of the editor saved an object with the directory, or a list
    of files. An empty value means the first available file."""
    while isinstance(value, list) and value:
        value = value[0]
    match value:
        case {"filename": str() as name, **rest}:
            subfolder = rest.get("subfolder")
            return f"{subfolder}/{name}" if isinstance(subfolder, str) and subfolder else name
        case None | "":
            return choices[0] if choices else value
        case bool() | int() | float():
            return ""
    return value
