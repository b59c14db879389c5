"""Validation of a graph before it is queued: ComfyUI's checks, in its order and with its error texts."""

import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from comfyui_workflow.sandbox.catalog import Catalog
from comfyui_workflow.sandbox.dynamic_inputs import MATCH_TYPE
from comfyui_workflow.sandbox.input_check import InputCheck, Reason, overrides_validation
from comfyui_workflow.sandbox.links import Graph, accepted_widgets, input_type_and_options
from comfyui_workflow.sandbox.node import SandboxNode
from comfyui_workflow.sandbox.versions import Version


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Result of the validation. `error` is the error object of the response; if it is None, at least one
    output is valid."""

    error: dict[str, Any] | None
    good_outputs: list[str]
    node_errors: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _NodeVerdict:
    is_valid: bool
    reasons: list[Reason] = field(default_factory=list)


def type_name(error: BaseException) -> str:
    """Returns the name of an exception as in ComfyUI: with its module, except for builtins."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def validate_graph(
    graph: Graph, *, catalog: Catalog, version: Version, targets: Iterable[str] | None = None
) -> Verdict:
    """Validates the graph and converts its widget values in place ("16" becomes 16 for an INT).

    `targets` limits the output nodes. Raises: TypeError or another exception, if the value is not a graph.
    """
    outputs: list[str] = []
    for node_id in graph:
        node = graph[node_id]
        node_class = catalog.get(node["class_type"]) if "class_type" in node else None
        if node_class is None:
            return _missing_class(node_id, node) if version.explains_refusals else _no_class(node_id, node)
        if node_class.OUTPUT_NODE and (targets is None or node_id in targets):
            outputs.append(node_id)
    if not outputs:
        return _refused("prompt_no_outputs", "Prompt has no outputs", "", {})
    return _validate_outputs(outputs, _GraphCheck(graph, catalog, version))


def _no_class(node_id: str, node: dict[str, Any]) -> Verdict:
    """Returns the refusal of a node without a known class, as the older versions word it."""
    message = (
        f"Cannot execute because node {node['class_type']} does not exist."
        if "class_type" in node
        else "Cannot execute because a node is missing the class_type property."
    )
    return _refused("invalid_prompt", message, f"Node ID '#{node_id}'", {})


def _missing_class(node_id: str, node: dict[str, Any]) -> Verdict:
    class_type = node.get("class_type")
    title = node.get("_meta", {}).get("title", class_type)
    message = (
        f"Node '{title}' not found. The custom node may not be installed."
        if "class_type" in node
        else f"Node '{title or f'ID #{node_id}'}' has no class_type. "
        "The workflow may be corrupted or a custom node is missing."
    )
    about = {"node_id": node_id, "class_type": class_type, "node_title": title}
    return _refused("missing_node_type", message, f"Node ID '#{node_id}'", {}, about)


def _refused(
    kind: str,
    message: str,
    details: str,
    node_errors: dict[str, Any],
    about: dict[str, Any] | None = None,
) -> Verdict:
    error = {"type": kind, "message": message, "details": details, "extra_info": about or {}}
    return Verdict(error=error, good_outputs=[], node_errors=node_errors)


def _validate_outputs(outputs: list[str], check: "_GraphCheck") -> Verdict:
    good_outputs: list[str] = []
    node_errors: dict[str, Any] = {}
    sentences: list[str] = []
    for output in outputs:
        verdict = check.output(output)
        if verdict.is_valid:
            good_outputs.append(output)
            continue
        sentences += [f"{reason['message']}: {reason['details']}" for reason in verdict.reasons]
        check.add_node_errors(output, node_errors)
    if not good_outputs:
        return _refused(
            "prompt_outputs_failed_validation",
            "Prompt outputs failed validation",
            "\n".join(sentences),
            node_errors,
        )
    return Verdict(error=None, good_outputs=good_outputs, node_errors=node_errors)


class _GraphCheck:
    """Validation of the nodes of a graph. Each node is validated once, even if several outputs need it."""

    def __init__(self, graph: Graph, catalog: Catalog, version: Version) -> None:
        self._graph = graph
        self._catalog = catalog
        self._version = version
        self._verdicts: dict[str, _NodeVerdict] = {}
        self._being_checked: list[str] = []

    def output(self, node_id: str) -> _NodeVerdict:
        try:
            return self._node(node_id)
        except Exception as error:  # noqa: BLE001 - graphs and node classes can be wrong in any way
            reason = _exception_reason("exception_during_validation", "Exception when validating node", error)
            self._verdicts[node_id] = _NodeVerdict(is_valid=False, reasons=[reason])
            return self._verdicts[node_id]

    def add_node_errors(self, output: str, node_errors: dict[str, Any]) -> None:
        """Adds all invalid nodes found so far to `node_errors`, with this output as a dependent. Like
        ComfyUI, it does not check if the output really depends on them."""
        for node_id, verdict in self._verdicts.items():
            if verdict.is_valid or not verdict.reasons:
                continue
            entry = {
                "errors": verdict.reasons,
                "dependent_outputs": [],
                "class_type": self._graph[node_id]["class_type"],
            }
            node_errors.setdefault(node_id, entry)["dependent_outputs"].append(output)

    def _node(self, node_id: str) -> _NodeVerdict:
        if node_id in self._verdicts:
            return self._verdicts[node_id]
        if node_id in self._being_checked:
            return self._cycle(node_id)
        self._being_checked.append(node_id)
        try:
            verdict = self._validate_node(node_id)
        finally:
            self._being_checked.pop()
        of_cycle = self._verdicts.get(node_id, _NodeVerdict(is_valid=True))
        more = [reason for reason in verdict.reasons if reason not in of_cycle.reasons]
        self._verdicts[node_id] = _NodeVerdict(
            is_valid=verdict.is_valid and of_cycle.is_valid, reasons=of_cycle.reasons + more
        )
        return self._verdicts[node_id]

    def _cycle(self, node_id: str) -> _NodeVerdict:
        """Refuses the nodes of a cycle; the older versions give no reason."""
        if not self._version.explains_refusals:
            return _NodeVerdict(is_valid=False)
        nodes = self._being_checked[self._being_checked.index(node_id) :]
        path = " -> ".join(f"{one} ({self._graph[one]['class_type']})" for one in [*nodes, node_id])
        for one in nodes:
            reason = {
                "type": "dependency_cycle",
                "message": "Dependency cycle detected",
                "details": path,
                "extra_info": {"node_id": one, "cycle_nodes": nodes},
            }
            self._verdicts[one] = _NodeVerdict(is_valid=False, reasons=[reason])
        return self._verdicts[node_id]

    def _validate_node(self, node_id: str) -> _NodeVerdict:
        inputs = self._graph[node_id]["inputs"]
        node_class = self._catalog[self._graph[node_id]["class_type"]]
        live = self._catalog.live_inputs(self._graph[node_id])
        reasons: list[Reason] = []
        are_sources_valid = True
        for name, declared in live.all.items():
            kind, options = input_type_and_options(declared)
            one = InputCheck(name, kind, options, inputs, node_class)
            if name not in inputs:
                reasons += one.missing(is_required=name in live.required, is_nested=live.has_dynamic)
            elif isinstance(inputs[name], list):
                link_reasons, is_source_valid = self._link(one)
                reasons += link_reasons
                are_sources_valid = are_sources_valid and is_source_valid
            else:
                reasons += one.widget(self._version)
        reasons += self._custom(node_class, inputs, live.all)
        return _NodeVerdict(is_valid=are_sources_valid and not reasons, reasons=reasons)

    def _link(self, one: InputCheck) -> tuple[list[Reason], bool]:
        """Returns (errors of the link itself, True if the source node is valid)."""
        link = one.value
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return [one.reason("bad_linked_input", message, one.name, received_value=link)], True
        received = self._catalog.outputs(self._graph[link[0]]["class_type"])[link[1]]
        if not _types_match(received, one.kind):
            details = f"{one.name}, received_type({received}) mismatch input_type({one.kind})"
            extra = {"received_type": received, "linked_node": link}
            message = "Return type mismatch between linked nodes"
            return [one.reason("return_type_mismatch", message, details, **extra)], True
        return [], self._source(one, link)

    def _source(self, one: InputCheck, link: list[Any]) -> bool:
        try:
            return self._node(link[0]).is_valid
        except Exception as error:  # noqa: BLE001 - graphs and node classes can be wrong in any way
            about = {
                "input_name": one.name,
                "input_config": one.config,
                "exception_message": str(error),
                "linked_node": link,
            }
            message = "Exception when validating inner node"
            reason = _exception_reason("exception_during_inner_validation", message, error, about)
            self._verdicts[link[0]] = _NodeVerdict(is_valid=False, reasons=[reason])
            return False

    def _custom(
        self, node_class: type[SandboxNode], inputs: dict[str, Any], schema: dict[str, Any]
    ) -> list[Reason]:
        """Calls the class's own `validate_inputs`. Its error is repeated for each widget that was passed."""
        if not overrides_validation(node_class):
            return []
        widgets = accepted_widgets(node_class.validate_inputs, inputs, schema)
        answer = node_class.validate_inputs(self._catalog.folders, **widgets) if widgets else True
        if answer is True:
            return []
        return [
            {
                "type": "custom_validation_failed",
                "message": "Custom validation failed for node",
                "details": name if answer is False else f"{name} - {answer}",
                "extra_info": {"input_name": name},
            }
            for name in widgets
        ]


def _exception_reason(
    kind: str, message: str, error: Exception, about: dict[str, Any] | None = None
) -> Reason:
    extra = {"exception_type": type_name(error), "traceback": traceback.format_tb(error.__traceback__)}
    return {"type": kind, "message": message, "details": str(error), "extra_info": {**(about or {}), **extra}}


def _types_match(received: Any, wanted: Any) -> bool:
    """True if the types are equal, one of them fits any other, or both are lists ("IMAGE,MASK") with a common
    member."""
    if received == wanted or not {"*", MATCH_TYPE}.isdisjoint((str(received), str(wanted))):
        return True
    if not isinstance(received, str) or not isinstance(wanted, str):
        return False
    return bool({part.strip() for part in received.split(",")} & {part.strip() for part in wanted.split(",")})
