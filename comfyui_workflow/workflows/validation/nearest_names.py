"""Search for the names that are most similar to a missing one, fast also for long lists.

How it works: names are compared without directory, extension and case. In a long list, the 60 candidates with
the largest share of common letter pairs are selected first; only these are compared in full
(`SequenceMatcher`).
"""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from heapq import nlargest

_COMPARED_IN_FULL = 60
_LONGEST_COMPARED = 100
_EXTENSION = re.compile(r"\.[a-z]\w{1,10}$")


def nearest(wanted: str, names: Sequence[str], *, count: int = 3, min_similarity: float = 0.3) -> list[str]:
    """Returns the most similar names, best first, with a similarity of at least `min_similarity` (0 to 1).

    Directory, extension and case are ignored: they say least about a model. About 10 ms for 1,000 names.
    """
    wanted_stem = _stem(wanted)
    candidates = [(_stem(name), name) for name in dict.fromkeys(names)]
    if len(candidates) > _COMPARED_IN_FULL:
        pairs = _pairs(wanted_stem)
        candidates = nlargest(_COMPARED_IN_FULL, candidates, key=lambda each: _overlap(pairs, each[0]))
    matcher = SequenceMatcher(None, "", wanted_stem, autojunk=False)
    scored = [(_similarity(matcher, stem), name) for stem, name in candidates]
    best = nlargest(count, scored, key=lambda each: each[0])
    return [name for similarity, name in best if similarity >= min_similarity]


def _stem(name: str) -> str:
    last = name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].casefold()
    return _EXTENSION.sub("", last)[:_LONGEST_COMPARED] or name[:_LONGEST_COMPARED]


def _pairs(text: str) -> set[str]:
    return {text[at : at + 2] for at in range(max(1, len(text) - 1))}


def _overlap(pairs: set[str], stem: str) -> float:
    """Returns the share of common letter pairs: a fast measure that selects the names to compare in full."""
    own = _pairs(stem)
    return len(pairs & own) / (len(pairs) + len(own))


def _similarity(matcher: "SequenceMatcher[str]", stem: str) -> float:
    matcher.set_seq1(stem)
    return matcher.ratio()
