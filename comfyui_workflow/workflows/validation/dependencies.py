"""Dependencies of the output nodes: nodes that ComfyUI validates, nodes that it only executes, and cycles."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Protocol

from comfyui_workflow.workflows.graph import closure

DEEPEST_VALIDATED = 900
"""ComfyUI validates recursively, so it fails at chains of about 1,000 nodes."""
_MOST_CYCLES = 10


class Linked(Protocol):
    @property
    def validated_sources(self) -> tuple[str, ...]:
        """Ids of the nodes that are linked to inputs that the class declares. ComfyUI validates them too."""
        ...

    @property
    def all_sources(self) -> tuple[str, ...]:
        """All linked nodes. Those at undeclared inputs are executed without validation."""
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
        """Returns the nodes that fail because of these: the nodes themselves, and all that depend on them."""
        users: dict[str, list[str]] = {}
        for key in self.validated:
            for source in self._nodes[key].validated_sources:
                users.setdefault(source, []).append(key)
        return closure(failing, lambda key: users.get(key, ()))

    @cached_property
    def in_or_behind_cycles(self) -> set[str]:
        return set(self._topological_sort(self.executed)[0])

    @cached_property
    def is_too_deep(self) -> bool:
        return self._topological_sort(self.executed)[1] > DEEPEST_VALIDATED

    @cached_property
    def cycles(self) -> list[list[str]]:
        """Cycles, each in the direction of the data flow. Not all of them are found: at least one if there is
        any, at most `_MOST_CYCLES`."""
        found: list[list[str]] = []
        left = list(
            self.in_or_behind_cycles and (key for key in self._nodes if key in self.in_or_behind_cycles)
        )
        while left and len(found) < _MOST_CYCLES:
            cycle = self._cycle_from(left[0], set(left))
            found.append(cycle)
            left = self._topological_sort(set(left) - set(cycle))[0]
        return found

    def _topological_sort(self, keys: set[str]) -> tuple[list[str], int]:
        """Sorts the nodes topologically. Returns (nodes that are in a cycle or depend on one, length of the
        longest chain among the others)."""
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
        """Follows links backwards until a node repeats, and returns that cycle. Each node of `among` must
        have a source in `among`."""
        path: dict[str, None] = {}
        key = start
        while key not in path:
            path[key] = None
            key = next(source for source in self._nodes[key].all_sources if source in among)
        walked = list(path)
        return walked[walked.index(key) :][::-1]
