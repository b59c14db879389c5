"""Validation of one node against its class on the instance: its sources and its problems."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from comfyui_workflow.parsing.untrusted import shown
from comfyui_workflow.workflows import input_errors
from comfyui_workflow.workflows.findings import Finding, Severity
from comfyui_workflow.workflows.graph import node_title
from comfyui_workflow.workflows.node_definitions import DYNAMIC_COMBO, Definitions
from comfyui_workflow.workflows.validation.files import KnownFiles
from comfyui_workflow.workflows.validation.inputs import (
    CheckedClass,
    InputCheck,
    Problem,
    unwrapped,
)
from comfyui_workflow.workflows.validation.links import is_link, link_problem, missing_source
from comfyui_workflow.workflows.validation.live_inputs import (
    has_dynamic_inputs,
    is_needed_choice,
    live_definition,
)
from comfyui_workflow.workflows.validation.replacements import Replacements
from comfyui_workflow.workflows.validation.suggestions import Suggestions

_MOST_PROBLEMS_OF_A_NODE = 100
_UNCERTAIN = (DYNAMIC_COMBO, "COMFY_DYNAMICSLOT_V3")
_CONVERTED = ("INT", "FLOAT", "STRING", "BOOLEAN")


@dataclass(frozen=True, kw_only=True)
class CheckedNode:
    """A node of the graph with its class and its sources. `checked` is None for an unknown class; then all
    links of the node count as sources."""

    node_id: str
    class_type: str | None
    title: str | None
    inputs: Mapping[str, Any] | None
    checked: CheckedClass | None
    may_be_output: bool
    validated_sources: tuple[str, ...] = ()
    all_sources: tuple[str, ...] = ()
    refused_for: tuple[Problem, ...] = ()
    """Reasons for which ComfyUI refuses every graph that contains this node."""
    dangling: tuple[Problem, ...] = ()
    """Links to missing nodes that ComfyUI does not validate. Executing such a node kills ComfyUI's worker."""

    @property
    def label(self) -> str:
        return shown(f"{self.node_id} ({self.class_type})")

    def finding(self, problem: Problem, is_validated: bool = True) -> Finding:
        is_error = problem.is_certain and is_validated
        finding = self.describe(problem.code, problem.message)
        severity = Severity.ERROR if is_error else Severity.WARNING
        return replace(finding, severity=severity, input_name=problem.input_name, nearest=problem.nearest)

    def describe(self, code: str, message: str) -> Finding:
        return Finding(
            code=code, message=message, node_id=self.node_id, class_type=self.class_type, title=self.title
        )


class NodeCheck:
    """Validation of the nodes of one graph. Classes are prepared once and cached."""

    def __init__(
        self,
        graph: Mapping[str, Any],
        definitions: Definitions,
        files: KnownFiles,
        suggestions: Suggestions,
        replaced: Replacements,
    ) -> None:
        self._graph = graph
        self._definitions = definitions
        self._suggestions = suggestions
        self._replaced = replaced
        self._values = InputCheck(files, suggestions)
        self._classes: dict[str, CheckedClass | None] = {}
        self._class_names = list(definitions)

    def node(self, node_id: str) -> CheckedNode:
        raw = self._graph[node_id]
        class_type = raw.get("class_type") if isinstance(raw, dict) else None
        inputs = raw.get("inputs") if isinstance(raw, dict) else None
        if not isinstance(class_type, str):
            message = "is not an object with a class_type"
            return self._refused(node_id, None, None, Problem(code="missing_node_type", message=message))
        title = node_title(raw)
        current = self._current(class_type, inputs)
        if isinstance(current, Problem):
            return self._refused(node_id, class_type, title, current)
        checked, inputs = current
        node = CheckedNode(
            node_id=node_id,
            class_type=class_type,
            title=title,
            inputs=inputs if isinstance(inputs, dict) else None,
            checked=checked,
            may_be_output=checked.definition.is_output,
        )
        return self._linked(node)

    def _current(self, class_type: str, inputs: Any) -> tuple[CheckedClass, Any] | Problem:
        """Returns the class and the inputs that ComfyUI uses, those of the replacement if it does not have
        the class; or the problem for which it refuses the graph."""
        replacement = None if class_type in self._definitions else self._replaced.get(class_type)
        new_class = class_type
        if replacement is not None and isinstance(inputs, dict):
            for name in replacement.missing(inputs):
                message = input_errors.missing(name)
                return Problem(code="required_input_missing", message=message, input_name=name)
            new_class, inputs = replacement.new_class, replacement.inputs(inputs)
        checked = self._class(new_class, inputs if isinstance(inputs, dict) else None)
        return self._unknown(class_type) if checked is None else (checked, inputs)

    def problems(self, node: CheckedNode) -> Iterator[Problem]:
        """Yields the problems of a node, in the order of the inputs in the class."""
        if node.checked is None:
            return
        if node.inputs is None:
            yield Problem(code="exception_during_validation", message='has no "inputs"')
            return
        position = node.checked.position
        found = list(islice(self._problems(node.checked, node.inputs), _MOST_PROBLEMS_OF_A_NODE))
        yield from sorted(found, key=lambda problem: position.get(problem.input_name or "", 0))

    def _problems(self, checked: CheckedClass, inputs: Mapping[str, Any]) -> Iterator[Problem]:
        for name in checked.required:
            if name not in inputs:
                yield from _missing(checked, name)
        for name, value in inputs.items():
            declared = checked.inputs.get(name)
            if declared is None:
                yield from _undeclared_link(checked, name, value)
                continue
            if isinstance(value, list):
                problem = link_problem(checked, declared, value, self._graph, self._definitions)
                problems = iter([problem] if problem else [])
            else:
                problems = self._values.problems(checked, declared, value)
            yield from (replace(each, input_name=name) for each in problems)

    def _refused(
        self, node_id: str, class_type: str | None, title: str | None, problem: Problem
    ) -> CheckedNode:
        """Returns a node that ComfyUI refuses. It counts as a possible output node."""
        node = CheckedNode(
            node_id=node_id,
            class_type=class_type,
            title=title,
            inputs=None,
            checked=None,
            may_be_output=True,
            refused_for=(problem,),
        )
        raw = self._graph[node_id]
        inputs = raw.get("inputs") if isinstance(raw, dict) else None
        return self._linked(replace(node, inputs=inputs)) if isinstance(inputs, dict) else node

    def _unknown(self, class_type: str) -> Problem:
        near = self._suggestions.nearest(class_type, self._class_names, min_similarity=0.6)
        offered = f"; the nearest that it has: {', '.join(near)}" if near else ""
        message = f'this ComfyUI has no node class "{shown(class_type)}"{offered}'
        return Problem(code="missing_node_type", message=message, nearest=near)

    def _class(self, class_type: str, inputs: Mapping[str, Any] | None) -> CheckedClass | None:
        """Returns the class with the inputs that it has for these values; one for each node only if the class
        has dynamic inputs."""
        if class_type not in self._classes:
            definition = self._definitions.get(class_type)
            self._classes[class_type] = CheckedClass(definition) if definition is not None else None
        checked = self._classes[class_type]
        if checked is None or not has_dynamic_inputs(checked.definition):
            return checked
        return CheckedClass(live_definition(checked.definition, inputs))

    def _linked(self, node: CheckedNode) -> CheckedNode:
        validated: list[str] = []
        others: list[str] = []
        dangling: list[Problem] = []
        for name, value in (node.inputs or {}).items():
            is_declared = node.checked is not None and name in node.checked.inputs
            source = _source(node.checked, name, value)
            if source is None:
                continue
            if source in self._graph:
                (validated if is_declared or node.checked is None else others).append(source)
            elif not (is_declared and isinstance(value, list)):
                dangling.append(replace(missing_source(name, shown(source)), input_name=name))
        return replace(
            node,
            validated_sources=tuple(validated),
            all_sources=(*validated, *others),
            dangling=tuple(dangling),
        )


def _source(checked: CheckedClass | None, name: str, value: Any) -> str | None:
    """Returns the id of the node that an input links to, or None. ComfyUI unwraps list values before it
    executes the graph, so a wrapped list can become a link."""
    declared = checked.inputs.get(name) if checked is not None else None
    if declared is not None:
        if isinstance(value, list):
            return value[0] if len(value) == 2 and isinstance(value[0], str) else None
        value = unwrapped(value) if declared.type not in _CONVERTED else None
    return value[0] if is_link(value) else None


def _undeclared_link(checked: CheckedClass, name: str, value: Any) -> Iterator[Problem]:
    """Yields the problem of a link at an input that one of ComfyUI's own classes does not declare. ComfyUI
    hands it on without validation, and most classes fail then. Rows of inputs are left out if the instance
    does not tell their names."""
    row, dot, _ = name.partition(".")
    is_told = not dot or row in checked.inputs or any(each.startswith(row + dot) for each in checked.inputs)
    if checked.is_own and is_link(value) and is_told:
        message = f'input "{shown(name)}" is linked, but the class has no such input: the node may fail'
        yield Problem(code="input_unknown", message=message, is_certain=False, input_name=name)


def _missing(checked: CheckedClass, name: str) -> Iterator[Problem]:
    """Yields the problem of a missing required input. ComfyUI accepts a missing dynamic combo, but then the
    node fails; other classes than ComfyUI's own can have a substitute."""
    declared = checked.inputs[name]
    is_certain = declared.type not in _UNCERTAIN or (checked.is_own and is_needed_choice(declared))
    message = input_errors.missing(name)
    yield Problem(code="required_input_missing", message=message, is_certain=is_certain, input_name=name)
