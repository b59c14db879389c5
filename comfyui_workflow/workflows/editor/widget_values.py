"""Which value each widget of a node has in an editor's file.

`widgets_values` is a row: a value for each widget of the class in order, and in between the values of
"control after generate" and of buttons. A node of somebody else may save an object by name instead.
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
    """None where neither the file nor the class has one."""
    control: str | None = None
    """What the editor does with it after each prompt: `fixed`, `randomize`, `increment`, `decrement`."""
    is_saved: bool = True
    """Whether the value is the file's own, not the default of the class."""


def widget_values(definition: NodeDefinition, saved: list[Any] | dict[str, Any]) -> Mapping[str, WidgetValue]:
    """By the name of the widget, without buttons. Values are as they were saved, whatever the class thinks of
    them, but for what the widget itself makes of any value."""
    if isinstance(saved, dict):
        found = {each.name: _by_name(each, saved) for each in definition.inputs if each.is_widget}
    else:
        found = dict(_by_position(definition, _without_forced(definition, saved)))
    return {name: in_widget(each) for name, each in found.items() if not each.definition.is_button}


def in_widget(widget: WidgetValue) -> WidgetValue:
    """The value as the editor shows it: text in a box for text, a name where a file is meant."""
    if widget.definition.is_text_box:
        return replace(widget, value=_as_text(widget.value))
    if widget.definition.is_file:
        return replace(widget, value=_file_name(widget.value, widget.definition.choices))
    return widget


def javascript_text(value: object) -> str:
    """As a browser words it."""
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
    """In order, however deep; an empty list is worded like nothing."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list) and each:
            waiting.extend(reversed(each))
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


def _without_forced(definition: NodeDefinition, saved: list[Any]) -> list[Any]:
    """Old rows have a value also for each input that its class has made a socket since (`forceInput`). The
    editor tells them by their length, and then takes out by the place among the inputs, controls or not."""
    inputs = [each for each in definition.inputs if each.is_widget or each.is_forced]
    buttons = 1 if any(each.is_file for each in definition.inputs) else 0
    if len(saved) != sum(1 + each.is_called_seed for each in inputs) + buttons:
        return saved
    forced = {place for place, each in enumerate(inputs) if each.is_forced}
    return [value for place, value in enumerate(saved) if place not in forced]


def _as_text(value: object) -> str:
    return re.sub(r"\r\n?", "\n", javascript_text(value))


def _file_name(value: Any, choices: tuple[Any, ...] | None) -> Any:
    """Some editors saved where the file is, or a list of files. Nothing is the first file there is."""
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
