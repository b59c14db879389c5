"""Formats ComfyUI's refusal of a prompt: which node, which input, which values are allowed."""

from collections.abc import Callable, Container, Iterator, Mapping
from itertools import islice
from typing import Any

from comfyui_workflow.parsing.untrusted import as_list, as_object, shown
from comfyui_workflow.workflows import input_errors
from comfyui_workflow.workflows.graph import Graph, node_title
from comfyui_workflow.workflows.validation.nearest_names import nearest

MOST_FINDINGS = 50
"""In one error message."""


def refusal_sentence(answer: Mapping[str, Any], graph: Graph, definitions: Mapping[str, Any]) -> str:
    """Reads the body of a 400 response: `{"error": {type, message, details}, "node_errors": {id: {errors:
    [..]}}}`. The node definitions (`/object_info`) supply the allowed values where ComfyUI leaves out a long
    list."""
    findings = list(islice(node_findings(answer.get("node_errors"), graph, definitions), MOST_FINDINGS))
    if not findings:
        findings = [_format_general(answer.get("error"))]
    return "ComfyUI refuses the workflow: " + "; ".join(findings)


def node_findings(node_errors: object, graph: Graph, definitions: Mapping[str, Any]) -> Iterator[str]:
    for node_id, node in as_object(node_errors).items():
        for error in as_list(as_object(node).get("errors")):
            if isinstance(error, dict):
                finding = _format_finding(error, _definition(node, definitions))
                yield f"{node_name(str(node_id), graph)}: {finding}"


def dropped_outputs(node_errors: Mapping[str, Any]) -> set[str]:
    """Returns the ids of the output nodes that do not run because of these errors."""
    lists = [as_list(as_object(node).get("dependent_outputs")) for node in node_errors.values()]
    return {shown(output) for outputs in lists for output in outputs}


def is_about(node_errors: Mapping[str, Any], given: Container[tuple[str, str]]) -> bool:
    """True if one of the errors is about one of these inputs (node id, input name)."""
    return any(
        (str(node_id), as_object(as_object(error).get("extra_info")).get("input_name")) in given
        for node_id, node in node_errors.items()
        for error in as_list(as_object(node).get("errors"))
    )


def _format_general(error: object) -> str:
    if not isinstance(error, dict):
        return shown(error or "it does not say why")
    message = shown(error.get("message") or error.get("type") or "it does not say why")
    details = shown(error.get("details") or "").strip()
    if error.get("type") == "prompt_outputs_failed_validation" and not details:
        details = "it names no node, as it does for a workflow with a cycle"
    return f"{message} ({details})" if details and details != message else message


def node_name(node_id: str, graph: Graph) -> str:
    """Names a node in a sentence: `node 3 (KSampler "second pass")`."""
    node = graph.get(node_id)
    if node is None:
        return f"node {node_id}"
    title = node_title(node)
    named = f' "{title}"' if title and title != node["class_type"] else ""
    return f"node {node_id} ({node['class_type']}{named})"


def _definition(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    return as_object(definitions.get(shown(node.get("class_type"))))


def _format_finding(error: Mapping[str, Any], definition: Mapping[str, Any]) -> str:
    extra = as_object(error.get("extra_info"))
    if not isinstance(extra.get("input_name"), str):
        return _format_general(error)
    formatter = _FORMATTERS.get(shown(error.get("type")))
    return (
        formatter(error, extra, definition)
        if formatter
        else f'input "{extra["input_name"]}": {_format_general(error)}'
    )


def _missing(_: Mapping[str, Any], extra: Mapping[str, Any], __: Mapping[str, Any]) -> str:
    return input_errors.missing(extra["input_name"])


def _wrong_type(_: Mapping[str, Any], extra: Mapping[str, Any], __: Mapping[str, Any]) -> str:
    wanted = next(iter(as_list(extra.get("input_config"))), "another type")
    return input_errors.wrong_type(extra["input_name"], extra.get("received_value"), wanted)


def _too_small(_: Mapping[str, Any], extra: Mapping[str, Any], __: Mapping[str, Any]) -> str:
    return input_errors.too_small(extra["input_name"], extra.get("received_value"), _option(extra, "min"))


def _too_big(_: Mapping[str, Any], extra: Mapping[str, Any], __: Mapping[str, Any]) -> str:
    return input_errors.too_big(extra["input_name"], extra.get("received_value"), _option(extra, "max"))


def _not_in_list(_: Mapping[str, Any], extra: Mapping[str, Any], definition: Mapping[str, Any]) -> str:
    name, received = extra["input_name"], extra.get("received_value")
    choices = _choices(extra.get("input_config") or _declared(definition, name))
    return input_errors.not_in_list(name, received, input_errors.offer(choices, _nearest(received, choices)))


def _wrong_link(error: Mapping[str, Any], extra: Mapping[str, Any], _: Mapping[str, Any]) -> str:
    return input_errors.wrong_link(extra["input_name"], error.get("details"))


def _custom(error: Mapping[str, Any], extra: Mapping[str, Any], _: Mapping[str, Any]) -> str:
    return shown(error.get("details") or f'input "{extra["input_name"]}" is not valid')


_Formatter = Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], str]
_FORMATTERS: dict[str, _Formatter] = {
    "required_input_missing": _missing,
    "invalid_input_type": _wrong_type,
    "value_smaller_than_min": _too_small,
    "value_bigger_than_max": _too_big,
    "value_not_in_list": _not_in_list,
    "return_type_mismatch": _wrong_link,
    "custom_validation_failed": _custom,
}


def _option(extra: Mapping[str, Any], key: str) -> str:
    match extra.get("input_config"):
        case [_, dict() as options]:
            return shown(options.get(key, "unknown"))
    return "unknown"


def _declared(definition: Mapping[str, Any], name: str) -> object:
    inputs = as_object(definition.get("input"))
    return next((group[name] for group in inputs.values() if isinstance(group, dict) and name in group), None)


def _choices(config: object) -> list[str] | None:
    match config:
        case [list() as choices, *_] | ["COMBO", {"options": list() as choices}]:
            return [shown(choice) for choice in choices]
    return None


def _nearest(received: object, choices: list[str] | None) -> list[str]:
    return nearest(shown(received), choices or []) or (choices or [])[:3]
