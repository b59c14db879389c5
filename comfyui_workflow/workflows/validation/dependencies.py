"""What of a graph its outputs need: what ComfyUI validates, what it runs besides, what turns in a circle."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Protocol

from comfyui_workflow.workflows.graph import closure

DEEPEST_VALIDATED = 900
"""ComfyUI validates by recursion, and so gives up at chains of about 1,000 nodes."""
_CYCLES_TOLD = 10


class Linked(Protocol):
    @property
    def validated_sources(self) -> tuple[str, ...]:
        """The nodes that are linked to inputs of the class: ComfyUI validates them with it."""
        ...

    @property
    def all_sources(self) -> tuple[str, ...]:
        """Also those linked to inputs that the class does not declare: ComfyUI only runs them."""
        ...


class Dependencies:
    def __init__(self, nodes: Mapping[str, Linked], outputs: Iterable[str]) -> None:
        self._nodes = nodes
        outputs = list(outputs)
        self.validated = closure(outputs, lambda key: nodes[key].validated_sources)
        self.executed = self.executed_for(outputs)

    def executed_for(self, outputs: Iterable[str]) -> set[str]:
        return closure(outputs, lambda key: self._nodes[key].all_sources)

    def dependents(self, failing: Iterable[str]) -> set[str]:
        """What fails with these: they, and what needs them."""
        users: dict[str, list[str]] = {}
        for key in self.validated:
            for source in self._nodes[key].validated_sources:
                users.setdefault(source, []).append(key)
        return closure(failing, lambda key: users.get(key, ()))

    @cached_property
    def in_or_behind_cycles(self) -> set[str]:
        return set(self._circling(self.executed)[0])

    @cached_property
    def is_too_deep(self) -> bool:
        return self._circling(self.executed)[1] > DEEPEST_VALIDATED

    @cached_property
    def cycles(self) -> list[list[str]]:
        """Some at least, each in the direction in which data flows."""
        found: list[list[str]] = []
        left = list(
            self.in_or_behind_cycles and (key for key in self._nodes if key in self.in_or_behind_cycles)
        )
        while left and len(found) < _CYCLES_TOLD:
            cycle = self._cycle_from(left[0], set(left))
            found.append(cycle)
            left = self._circling(set(left) - set(cycle))[0]
        return found

    def _circling(self, keys: set[str]) -> tuple[list[str], int]:
        """(what no order of running would ever come to, the longest chain among the rest)."""
        waits_for = {key: set(self._nodes[key].all_sources) & keys for key in self._nodes if key in keys}
        users: dict[str, list[str]] = {}
        for key, sources in waits_for.items():
            for source in sources:
                users.setdefault(source, []).append(key)
        depth = dict.fromkeys((key for key, sources in waits_for.items() if not sources), 1)
        ready = list(depth)
        for key in ready:
            for user in users.get(key, ()):
                depth[user] = max(depth.get(user, 0), depth[key] + 1)
                waits_for[user].discard(key)
                if not waits_for[user]:
                    ready.append(user)
        return [key for key, sources in waits_for.items() if sources], max(depth.values(), default=0)

    def _cycle_from(self, start: str, among: set[str]) -> list[str]:
        """Against the links, until a node comes twice; each of `among` has a source that is one of them."""
        path: dict[str, None] = {}
        key = start
        while key not in path:
            path[key] = None
            key = next(source for source in self._nodes[key].all_sources if source in among)
        walked = list(path)
        return walked[walked.index(key) :][::-1]
