"""Assignment of saved values to the widgets of a node, by its definition.

How it works: `widgets_values` is a list with one value for each widget, in the order of the class, and
between them the values of "control after generate" and of buttons. Some custom nodes save an object by name
instead.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from comfyui_workflow.workflows.node_definitions import InputDefinition, NodeDefinition


@dataclass(frozen=True, kw_only=True)
class WidgetValue:
    definition: InputDefinition
    value: Any
    """None if neither the file nor the class has a value."""
    control: str | None = None
    """Mode of "control after generate": `fixed`, `randomize`, `increment`, `decrement`."""
    is_saved: bool = True
    """True if the value is from the file, False if it is the default of the class."""


def widget_values(definition: NodeDefinition, saved: list[Any] | dict[str, Any]) -> Mapping[str, WidgetValue]:
    """Returns the values by widget name, without buttons. Values are returned as saved, even if the class
    does not allow them, except for the conversions that the widget itself makes (`as_displayed`)."""
    if isinstance(saved, dict):
        found = {each.name: _by_name(each, saved) for each in definition.inputs if each.is_widget}
    else:
        found = dict(_by_position(definition, _without_sockets(definition, saved)))
    return {name: as_displayed(each) for name, each in found.items() if not each.definition.is_button}


def as_displayed(widget: WidgetValue) -> WidgetValue:
    """Returns the value as the widget shows it: as text in a text box, as a file name in a file widget."""
    if widget.definition.is_text_box:
        return replace(widget, value=_as_text(widget.value))
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


def _by_name(widget: InputDefinition, saved: dict[str, Any]) -> WidgetValue:
    is_saved = widget.name in saved
    value = saved[widget.name] if is_saved else widget.default
    return WidgetValue(definition=widget, value=value, is_saved=is_saved)


def _by_position(definition: NodeDefinition, saved: list[Any]) -> Iterator[tuple[str, WidgetValue]]:
    position = 0
    has_button_between = not definition.has_input_order and any(each.is_file for each in definition.inputs)
    for widget in (each for each in definition.inputs if each.is_widget):
        if has_button_between and not widget.is_required:
            position, has_button_between = position + 1, False
        is_saved = position < len(saved)
        value = saved[position] if is_saved else widget.default
        after = saved[position + 1 : position + 1 + widget.control_count]
        control = after[0] if after and isinstance(after[0], str) else None
        yield (
            widget.name,
            WidgetValue(definition=widget, value=value, control=control, is_saved=is_saved),
        )
        position += widget.row_width


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
