"""What ComfyUI would say of a graph, all of it and before anything is uploaded.

Nothing is called an error that a real ComfyUI would run; where only it can say, there is a warning. As it
does, only what the outputs need is looked at, and an output that fails does not keep another from running.
It trusts the definitions: an instance may have got a model since they were fetched, so fetch them again
before refusing.

Codes are ComfyUI's own, of its newest version; ours are `input_file_missing`, `input_file_unused`,
`link_expected` and `node_not_needed`.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from comfyui_workflow.parsing.untrusted import shown
from comfyui_workflow.workflows.findings import Finding, Severity
from comfyui_workflow.workflows.graph import Graph
from comfyui_workflow.workflows.node_definitions import Definitions
from comfyui_workflow.workflows.validation.dependencies import Dependencies
from comfyui_workflow.workflows.validation.files import FilesKnown, unused
from comfyui_workflow.workflows.validation.nodes import CheckedNode, NodeCheck
from comfyui_workflow.workflows.validation.suggestions import Suggestions

_NAMED_AT_MOST = 10


@dataclass(frozen=True, kw_only=True)
class Verdict:
    findings: tuple[Finding, ...]
    """All of them, errors first, in the order of the graph. There are errors exactly if it would not run."""
    would_run: bool
    """At least one output of it."""
    dropped_outputs: tuple[str, ...] = ()
    """The output nodes that ComfyUI leaves out, because of something they need, while it runs the rest."""


def preflight(
    graph: Graph,
    definitions: Definitions,
    *,
    files: FilesKnown,
    replaced: Container[str] = frozenset(),
) -> Verdict:
    """`replaced`: classes that the instance has not got, but has others for (`/node_replacements`)."""
    return _Preflight(graph, definitions, files, replaced).verdict()


class _Preflight:
    def __init__(
        self, graph: Graph, definitions: Definitions, files: FilesKnown, replaced: Container[str]
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
        of_the_whole, of_nodes = list(self._of_the_whole()), list(self._of_nodes())
        failing = {each.node_id for each in of_nodes if each.severity is Severity.ERROR and each.node_id}
        bad = self._needs.dependents(failing) | self._needs.in_or_behind_cycles
        good = [key for key in self._outputs if key not in bad]
        is_deadly = any(self._nodes[key].dangling for key in self._needs.executed_for(good))
        would_run = not of_the_whole and bool(good) and not is_deadly
        findings = [*of_the_whole, *of_nodes, *self._dangling(), *self._cycles(), *self._asides()]
        if would_run:
            findings = [replace(each, severity=Severity.WARNING) for each in findings]
        dropped = tuple(key for key in self._outputs if key in bad) if would_run else ()
        return Verdict(findings=self._in_order(findings), would_run=would_run, dropped_outputs=dropped)

    def _of_the_whole(self) -> Iterator[Finding]:
        """Because of any of these ComfyUI looks no further."""
        for node in self._nodes.values():
            yield from (node.finding(problem) for problem in node.refused_for)
        if not self._outputs:
            message = "no node of the workflow gives an output: one like SaveImage or PreviewImage is needed"
            yield Finding(code="prompt_no_outputs", message=message)

    def _of_nodes(self) -> Iterator[Finding]:
        """What no output needs is not looked at; what runs without being validated may well run."""
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

    def _asides(self) -> Iterator[Finding]:
        for name in unused(self._graph, self._files.provided):
            message = f'the file "{shown(name)}" is sent along, but no node names it'
            yield Finding(code="input_file_unused", message=message, severity=Severity.WARNING)
        idle = [node.label for key, node in self._nodes.items() if key not in self._needs.executed]
        if idle:
            message = f"no output needs {_some(idle)}: what nothing needs does not run"
            yield Finding(code="node_not_needed", message=message, severity=Severity.WARNING)
        if self._needs.is_too_deep:
            message = "the workflow is a chain of so many nodes that ComfyUI may refuse it"
            yield Finding(code="exception_during_validation", message=message, severity=Severity.WARNING)

    def _in_order(self, findings: Iterable[Finding]) -> tuple[Finding, ...]:
        """Errors first, each kind in the order of the graph, what concerns no node last."""
        position = {key: at for at, key in enumerate(self._nodes)}

        def place(finding: Finding) -> tuple[bool, int]:
            return finding.severity is not Severity.ERROR, position.get(finding.node_id or "", len(position))

        return tuple(sorted(findings, key=place))


def _some(labels: Iterable[str]) -> str:
    several = list(labels)
    rest = len(several) - _NAMED_AT_MOST
    named = ", ".join(several[:_NAMED_AT_MOST])
    return f"{named} and {rest} more" if rest > 0 else named
