"""The names that come nearest to one that is not there: found soon, however many there are."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from heapq import nlargest

_COMPARED_IN_FULL = 60
_LONGEST_COMPARED = 100
_EXTENSION = re.compile(r"\.[a-z]\w{1,10}$")


def nearest(wanted: str, names: Sequence[str], *, count: int = 3, alike: float = 0.3) -> list[str]:
    """The best first; none that is less `alike` than that (0 to 1). Directory, extension and case count for
    nothing: of models they say the least. About 10 ms for 1,000 names."""
    own = _essence(wanted)
    candidates = [(_essence(name), name) for name in dict.fromkeys(names)]
    if len(candidates) > _COMPARED_IN_FULL:
        pairs = _pairs(own)
        candidates = nlargest(_COMPARED_IN_FULL, candidates, key=lambda each: _overlap(pairs, each[0]))
    matcher = SequenceMatcher(None, "", own, autojunk=False)
    scored = [(_likeness(matcher, essence), name) for essence, name in candidates]
    best = nlargest(count, scored, key=lambda each: each[0])
    return [name for likeness, name in best if likeness >= alike]


def _essence(name: str) -> str:
    last = name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].casefold()
    return _EXTENSION.sub("", last)[:_LONGEST_COMPARED] or name[:_LONGEST_COMPARED]


def _pairs(text: str) -> set[str]:
    return {text[at : at + 2] for at in range(max(1, len(text) - 1))}


def _overlap(pairs: set[str], essence: str) -> float:
    """Cheap, and good enough to choose whom to compare in full: how many pairs of letters are common."""
    own = _pairs(essence)
    return len(pairs & own) / (len(pairs) + len(own))


def _likeness(matcher: "SequenceMatcher[str]", essence: str) -> float:
    matcher.set_seq1(essence)
    return matcher.ratio()
