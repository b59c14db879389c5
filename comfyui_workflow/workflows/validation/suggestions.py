"""Suggestions for missing names, with a limit on the total work."""

from collections.abc import Sequence

from comfyui_workflow.parsing.untrusted import shown
from comfyui_workflow.workflows.validation.nearest_names import nearest

MOST_NAMES_COMPARED = 100_000
"""About one second of work. A workflow that needs more comparisons has other problems."""


class Suggestions:
    """Suggestions for one workflow. Each search is made once and cached; after `MOST_NAMES_COMPARED` names,
    further searches return nothing."""

    def __init__(self) -> None:
        self._remaining = MOST_NAMES_COMPARED
        self._found: dict[tuple[str, int], tuple[Sequence[object], tuple[str, ...]]] = {}

    def nearest(
        self, wanted: str, names: Sequence[object], *, min_similarity: float = 0.3
    ) -> tuple[str, ...]:
        key = (wanted, id(names))
        if key not in self._found and len(names) <= self._remaining:
            self._remaining -= len(names)
            found = nearest(wanted, [shown(name) for name in names], min_similarity=min_similarity)
            self._found[key] = (names, tuple(found))  # keeps `names` alive, so that its id is not reused
        return self._found[key][1] if key in self._found else ()
