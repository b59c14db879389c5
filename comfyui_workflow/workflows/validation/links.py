"""Validation of links, by the rules of ComfyUI's own validation."""

from collections.abc import Mapping
from typing import Any

from comfyui_workflow.parsing.untrusted import shown
from comfyui_workflow.workflows import input_errors
from comfyui_workflow.workflows.node_definitions import (
    Definitions,
    InputDefinition,
    NodeDefinition,
)
from comfyui_workflow.workflows.validation.inputs import (
    CheckedClass,
    Problem,
    is_dynamic,
    is_own,
)

BAD_LINK = "bad_linked_input"


def is_link(value: object) -> bool:
    """True if ComfyUI follows the value as a link when it executes a graph. (Its validation reads every list
    as a link.)"""
    match value:
        case [str(), int() | float()]:
            return True
    return False


def missing_source(name: str, source: str) -> Problem:
    return Problem(code=BAD_LINK, message=f'input "{name}" links to node {source}, which does not exist')


def link_problem(
    checked: CheckedClass,
    declared: InputDefinition,
    link: list[Any],
    graph: Mapping[str, Any],
    definitions: Definitions,
) -> Problem | None:
    """Returns the problem of a link, or None. It is certain only for classes that are part of ComfyUI: others
    can accept any type and have any number of slots."""
    problem = _shape_problem(declared.name, link, graph)
    source = _definition(graph[link[0]], definitions) if problem is None else None
    if source is None:
        return problem
    source_id, slot = link
    if not isinstance(slot, int) or not -len(source.outputs) <= slot < len(source.outputs):
        return _no_slot(declared.name, source_id, source, slot)
    if _accepts(declared, source.outputs[slot], _choices_of_output(source, slot, definitions)):
        return None
    message = input_errors.wrong_link(declared.name, f"{source.outputs[slot]}, it takes {declared.type}")
    is_certain = checked.is_own and is_own(source)
    return Problem(code="return_type_mismatch", message=message, is_certain=is_certain)


def _shape_problem(name: str, link: list[Any], graph: Mapping[str, Any]) -> Problem | None:
    if len(link) != 2:
        message = f'input "{name}" is a list of {len(link)}, but a link is [node id, slot]'
        return Problem(code=BAD_LINK, message=f'{message}; write a list value as {{"__value__": […]}}')
    if not isinstance(link[0], str):
        message = f'input "{name}" links to {shown(link[0])}, which is not a node id: node ids are texts'
        return Problem(code=BAD_LINK, message=message)
    return None if link[0] in graph else missing_source(name, shown(link[0]))


def _definition(node: Any, definitions: Definitions) -> NodeDefinition | None:
    class_type = node.get("class_type") if isinstance(node, dict) else None
    return definitions.get(class_type) if isinstance(class_type, str) else None


def _no_slot(name: str, source_id: str, source: NodeDefinition, slot: Any) -> Problem:
    count = len(source.outputs)
    has = f"has slots 0 to {count - 1}" if count > 1 else "has only slot 0" if count else "has no outputs"
    source_name = f"node {shown(source_id)} ({source.class_type})"
    message = f'input "{name}" links to slot {input_errors.quoted(slot)} of {source_name}, which {has}'
    return Problem(code=BAD_LINK, message=message, is_certain=is_own(source))


def _choices_of_output(source: NodeDefinition, slot: int, definitions: Definitions) -> list[Any] | None:
    """Returns the choices of an output whose type is a list of choices, else None."""
    declared_type = definitions.object_info[source.class_type]["output"][slot]
    return declared_type if isinstance(declared_type, list) else None


def _accepts(declared: InputDefinition, received: str, choices: list[Any] | None) -> bool:
    """True if the input accepts the type. Types can be lists with commas: one common type is enough. Lists of
    choices must be equal."""
    wanted = declared.type
    if "*" in (received, wanted) or is_dynamic(received) or is_dynamic(wanted):
        return True
    if choices is not None and not declared.has_list_type:
        return wanted == "COMBO" and declared.are_choices_checked
    if choices is not None or declared.has_list_type:
        return _are_same(choices, list(declared.choices or ()))
    return bool(_kinds(received) & _kinds(wanted))


def _are_same(some: list[Any] | None, others: list[Any]) -> bool:
    try:
        return some == others
    except RecursionError:  # nested too deeply
        return False


def _kinds(type_name: str) -> set[str]:
    return {kind.strip() for kind in type_name.split(",")}
