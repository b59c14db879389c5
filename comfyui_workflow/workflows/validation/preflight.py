"""Preflight: predicts all validation errors of ComfyUI before anything is uploaded.

How it works: every node is checked against its class (`nodes.py`); the dependencies of the output nodes
decide which problems count (`dependencies.py`). As in ComfyUI, only nodes that an output needs are validated,
and an output that fails does not prevent the others from running. A problem is an error only if a real
ComfyUI would certainly refuse the graph; if only ComfyUI can decide, it is a warning.

The preflight trusts the node definitions. A model can be added to an instance after they were fetched, so
fetch them again before refusing a run.

Codes are those of the newest ComfyUI; our own are `input_file_missing`, `input_file_unused`, `input_unknown`,
`link_expected` and `node_not_needed`.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from comfyui_workflow.parsing.untrusted import shown
from comfyui_workflow.workflows.findings import Finding, Severity
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.validation.dependencies import DEEPEST_VALIDATED, Dependencies
from comfyui_workflow.workflows.validation.files import KnownFiles, unused
from comfyui_workflow.workflows.validation.nodes import CheckedNode, NodeCheck
from comfyui_workflow.workflows.validation.replacements import NO_REPLACEMENTS, Replacements
from comfyui_workflow.workflows.validation.suggestions import Suggestions

_MOST_LABELS = 10


@dataclass(frozen=True, kw_only=True)
class Verdict:
    findings: tuple[Finding, ...]
    """All findings, errors first, in the order of the graph. There are errors if and only if the graph would
    not run."""
    would_run: bool
    """True if at least one output node would run."""
    dropped_outputs: tuple[str, ...] = ()
    """Ids of the output nodes that ComfyUI skips because of a failing dependency."""
    dropped_by: tuple[Finding, ...] = ()
    """Problems of inputs for which ComfyUI skips these output nodes."""

    def refusing(self, given: Container[tuple[str, str]]) -> "Verdict":
        """Returns the verdict if a value at one of these inputs (node id, name) must not drop an output: the
        person who set it expects that output."""
        refused = {each for each in self.dropped_by if (each.node_id, each.input_name) in given}
        if not refused:
            return self
        findings = tuple(
            replace(each, severity=Severity.ERROR) if each in refused else each for each in self.findings
        )
        ordered = sorted(findings, key=lambda each: each.severity is not Severity.ERROR)
        return replace(self, findings=tuple(ordered), would_run=False)


def preflight(
    graph: Graph,
    definitions: Definitions,
    *,
    files: KnownFiles,
    replaced: Replacements = NO_REPLACEMENTS,
) -> Verdict:
    """Validates a graph. `replaced`: classes that the instance replaces if it does not have them."""
    return _Preflight(graph, definitions, files, replaced).verdict()


class _Preflight:
    def __init__(
        self, graph: Graph, definitions: Definitions, files: KnownFiles, replaced: Replacements
    ) -> None:
        self._graph = graph if isinstance(graph, dict) else {}
        self._files = files
        suggestions = Suggestions()
        check = NodeCheck(self._graph, definitions, files, suggestions, replaced)
        self._nodes: Mapping[str, CheckedNode] = {key: check.node(key) for key in self._graph}
        self._check = check
        self._outputs = [key for key, node in self._nodes.items() if node.may_be_output]
        self._needs = Dependencies(self._nodes, self._outputs or list(self._nodes))

    def verdict(self) -> Verdict:
        graph_findings, node_findings = list(self._graph_findings()), list(self._node_findings())
        failing = {each.node_id for each in node_findings if each.severity is Severity.ERROR and each.node_id}
        bad = self._needs.dependents(failing) | self._needs.in_or_behind_cycles
        good = [key for key in self._outputs if key not in bad]
        kills_worker = any(self._nodes[key].dangling for key in self._needs.executed_for(good))
        would_run = not graph_findings and bool(good) and not kills_worker
        findings = [*graph_findings, *node_findings, *self._dangling(), *self._cycles(), *self._hints()]
        if not would_run:
            return Verdict(findings=self._in_order(findings), would_run=False)
        lasting = [each for each in node_findings if each.severity is Severity.ERROR]
        return Verdict(
            findings=self._in_order(map(_as_warning, findings)),
            would_run=True,
            dropped_outputs=tuple(key for key in self._outputs if key in bad),
            dropped_by=tuple(map(_as_warning, lasting)),
        )

    def _graph_findings(self) -> Iterator[Finding]:
        """Yields the findings for which ComfyUI refuses the whole graph without further checks."""
        for node in self._nodes.values():
            yield from (node.finding(problem) for problem in node.refused_for)
        if not self._outputs:
            message = "no node of the workflow gives an output: one like SaveImage or PreviewImage is needed"
            yield Finding(code="prompt_no_outputs", message=message)

    def _node_findings(self) -> Iterator[Finding]:
        """Yields the findings of nodes that an output needs. Problems of nodes that ComfyUI executes without
        validation are only warnings."""
        for key, node in self._nodes.items():
            if key in self._needs.executed:
                is_validated = key in self._needs.validated
                yield from (node.finding(each, is_validated) for each in self._check.problems(node))

    def _dangling(self) -> Iterator[Finding]:
        for key, node in self._nodes.items():
            yield from (node.finding(each, key in self._needs.executed) for each in node.dangling)

    def _cycles(self) -> Iterator[Finding]:
        for cycle in self._needs.cycles:
            path = " → ".join(self._nodes[key].label for key in [*cycle, cycle[0]])
            message = shown(f"it is in a cycle: {path}")
            yield self._nodes[cycle[0]].describe("dependency_cycle", message)

    def _hints(self) -> Iterator[Finding]:
        for name in unused(self._graph, self._files.provided):
            message = f'the file "{shown(name)}" is sent with the request, but no node names it'
            yield Finding(code="input_file_unused", message=message, severity=Severity.WARNING)
        unneeded = [node.label for key, node in self._nodes.items() if key not in self._needs.executed]
        if unneeded:
            message = (
                f"no output needs {_first_labels(unneeded)}: ComfyUI does not run nodes that no output needs"
            )
            yield Finding(code="node_not_needed", message=message, severity=Severity.WARNING)
        if self._needs.is_too_deep:
            message = (
                f"the workflow has a chain of more than {DEEPEST_VALIDATED} nodes, so ComfyUI may refuse it"
            )
            yield Finding(code="exception_during_validation", message=message, severity=Severity.WARNING)

    def _in_order(self, findings: Iterable[Finding]) -> tuple[Finding, ...]:
        """Sorts findings: errors first, each kind in the order of the graph, findings without a node last."""
        position = {key: at for at, key in enumerate(self._nodes)}

        def sort_key(finding: Finding) -> tuple[bool, int]:
            return finding.severity is not Severity.ERROR, position.get(finding.node_id or "", len(position))

        return tuple(sorted(findings, key=sort_key))


def _as_warning(finding: Finding) -> Finding:
    return replace(finding, severity=Severity.WARNING)


def _first_labels(labels: Iterable[str]) -> str:
    several = list(labels)
    rest = len(several) - _MOST_LABELS
    named = ", ".join(several[:_MOST_LABELS])
    return f"{named} and {rest} more" if rest > 0 else named
