"""What an instance has that comes nearest to what a workflow names, for as long as finding that is quick."""

from collections.abc import Sequence

from comfyui_workflow.parsing.untrusted import shown
from comfyui_workflow.workflows.validation.nearest_names import nearest

MOST_NAMES_COMPARED = 100_000
"""About a second's work. A workflow that needs more has other troubles."""


class Suggestions:
    """For one workflow: the same question is answered once, and after so much work none any more."""

    def __init__(self) -> None:
        self._left = MOST_NAMES_COMPARED
        self._answers: dict[tuple[str, int], tuple[Sequence[object], tuple[str, ...]]] = {}

    def nearest(self, wanted: str, names: Sequence[object], *, alike: float = 0.3) -> tuple[str, ...]:
        key = (wanted, id(names))
        if key not in self._answers and len(names) <= self._left:
            self._left -= len(names)
            found = nearest(wanted, [shown(name) for name in names], alike=alike)
            self._answers[key] = (names, tuple(found))  # with the names: while they live, their id is theirs
        return self._answers[key][1] if key in self._answers else ()
