"""Values of seeds, and of other inputs with "control after generate", when a workflow is queued."""

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from comfyui_workflow.workflows.dynamic_inputs import declared_inputs
from comfyui_workflow.workflows.editor.widget_values import WidgetValue
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.node_definitions import Definitions, InputDefinition
from comfyui_workflow.workflows.seed_mode import SeedMode

LARGEST_SEED = 1125899906842624
"""2^50, the largest seed that the editor draws: a browser cannot count larger numbers in single steps."""

RANDOM_SEED = -1
"""Stands for a random seed in SwarmUI, in the webui of AUTOMATIC1111, and so in many programs."""

Draw = Callable[[int, int], int]
"""Returns a random integer between minimum and maximum, both included."""


def resolve_widget_value(widget: WidgetValue, mode: SeedMode, draw: Draw) -> Any:
    """Returns the value with which a widget of an editor file is queued."""
    control = {SeedMode.SAVED: None, SeedMode.CONTROL: widget.control}.get(mode, "randomize")
    if control is None or not widget.definition.control_count:
        return widget.value
    if widget.definition.choices is not None:
        return _changed_choice(widget, control, draw) if mode is SeedMode.CONTROL else widget.value
    return _changed_number(widget.definition, widget.value, control, draw)


def with_new_seeds(graph: Graph, definitions: Definitions, draw: Draw) -> dict[str, Any]:
    """Returns the graph (API format) with a new random value for every seed. Linked seeds stay linked."""
    return {node_id: _with_new_seeds(node, definitions, draw) for node_id, node in graph.items()}


def with_random_seeds(graph: Graph, definitions: Definitions, draw: Draw) -> Graph:
    """Returns the graph with a random value for every seed that is -1 and cannot be negative; the same object
    if there is none."""
    drawn = {
        (node_id, each.name): _random_number(each, draw)
        for node_id, node in graph.items()
        if (definition := definitions.get(node["class_type"])) is not None
        for each in definition.inputs
        if _is_unsigned_seed(each) and (node.get("inputs") or {}).get(each.name) == RANDOM_SEED
    }
    changed = {node_id: {**graph[node_id], "inputs": dict(graph[node_id]["inputs"])} for node_id, _ in drawn}
    for (node_id, name), seed in drawn.items():
        changed[node_id]["inputs"][name] = seed
    return {**graph, **changed} if changed else graph


def with_stepped_seeds(graph: Graph, definitions: Definitions, step: int) -> Graph:
    """Returns the graph with `step` added to every seed; after the greatest value comes the least."""
    return {node_id: _with_stepped_seeds(node, definitions, step) for node_id, node in graph.items()}


def _with_stepped_seeds(node: Mapping[str, Any], definitions: Definitions, step: int) -> dict[str, Any]:
    inputs = dict(node.get("inputs") or {})
    for each in _seeds_of(node, definitions):
        if isinstance(inputs[each.name], int):
            least, most = _limits(each)
            inputs[each.name] = least + (inputs[each.name] - least + step) % max(1, most - least + 1)
    return {**node, "inputs": inputs}


def _seeds_of(node: Mapping[str, Any], definitions: Definitions) -> list[InputDefinition]:
    """Returns the inputs that are numbers with "control after generate", and have a number here."""
    definition, inputs = definitions.get(node["class_type"]), node.get("inputs") or {}
    declared = list(declared_inputs(definition, dict(inputs))) if definition else []
    return [
        each
        for each in declared
        if each.control_count and each.choices is None and _is_number(inputs.get(each.name))
    ]


def _is_unsigned_seed(definition: InputDefinition) -> bool:
    is_seed = definition.type == "INT" and definition.control_count > 0
    return is_seed and "min" in definition.options and _limits(definition)[0] >= 0


def _with_new_seeds(node: dict[str, Any], definitions: Definitions, draw: Draw) -> dict[str, Any]:
    inputs = dict(node.get("inputs") or {})
    for each in _seeds_of(node, definitions):
        inputs[each.name] = _changed_number(each, inputs[each.name], "randomize", draw)
    return {**node, "inputs": inputs}


def _changed_number(definition: InputDefinition, value: object, control: str, draw: Draw) -> Any:
    if control == "randomize":
        return _random_number(definition, draw)
    least, most = _limits(definition)
    step = {"increment": 1, "decrement": -1}.get(control)
    if step is None or not isinstance(value, int) or isinstance(value, bool):
        return value
    return min(max(value + step, least), most)


def _changed_choice(widget: WidgetValue, control: str, draw: Draw) -> Any:
    """Returns a random, the next or the previous choice; the list wraps around. A value that is not in the
    list is returned unchanged."""
    choices = widget.definition.choices or ()
    if not choices or widget.value not in choices:
        return widget.value
    if control == "randomize":
        return choices[draw(0, len(choices) - 1)]
    step = {"increment": 1, "decrement": -1}.get(control, 0)
    return choices[(choices.index(widget.value) + step) % len(choices)]


def _random_number(definition: InputDefinition, draw: Draw) -> int:
    """Returns a random value within the limits of the input and of the editor."""
    least, most = _limits(definition)
    low = max(least, min(most, -LARGEST_SEED))
    return draw(low, max(low, min(most, LARGEST_SEED)))


def _limits(definition: InputDefinition) -> tuple[int, int]:
    return _bound(definition, "min", 0), _bound(definition, "max", LARGEST_SEED)


def _bound(definition: InputDefinition, name: str, default: int) -> int:
    bound = definition.options.get(name)
    if isinstance(bound, float):
        return int(bound) if isfinite(bound) else default
    return bound if isinstance(bound, int) else default


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
