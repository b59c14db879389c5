"""Which value each widget of a node has in an editor's file.

`widgets_values` is a list by position, over the widgets of the class in their order, with the values of
"control after generate" in between. A node of somebody else may save an object by name instead.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from comfyui_workflow.workflows.definitions import InputDefinition, NodeDefinition


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
    """By the name of the widget. Values are as they were saved, whatever the class thinks of them."""
    widgets = [each for each in definition.inputs if each.is_widget]
    if isinstance(saved, dict):
        return {widget.name: _by_name(widget, saved) for widget in widgets}
    return dict(_by_position(widgets, _without_forced(definition, saved)))


def _by_name(widget: InputDefinition, saved: dict[str, Any]) -> WidgetValue:
    is_saved = widget.name in saved
    value = saved[widget.name] if is_saved else widget.default
    return WidgetValue(definition=widget, value=value, is_saved=is_saved)


def _by_position(widgets: list[InputDefinition], saved: list[Any]) -> Iterator[tuple[str, WidgetValue]]:
    position = 0
    for widget in widgets:
        is_saved = position < len(saved)
        value = saved[position] if is_saved else widget.default
        after = saved[position + 1 : position + 1 + widget.control_count]
        control = after[0] if after and isinstance(after[0], str) else None
        yield (
            widget.name,
            WidgetValue(definition=widget, value=value, control=control, is_saved=is_saved),
        )
        position += 1 + widget.control_count


def _without_forced(definition: NodeDefinition, saved: list[Any]) -> list[Any]:
    """Old files have a value also for each input that its class has made a socket since (`forceInput`)."""
    is_forced = [
        mark
        for each in definition.inputs
        if each.is_widget or each.is_forced
        for mark in [each.is_forced] + [False] * each.control_count
    ]
    if len(saved) != len(is_forced):
        return saved
    return [value for value, forced in zip(saved, is_forced, strict=True) if not forced]
