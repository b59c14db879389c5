"""Ids in one block of memory behave like a sorted list of distinct ids."""

import random
from bisect import bisect_left, insort

import pytest

from comfyui_workflow.stores.sorted_ids import SortedIds


@pytest.mark.parametrize("seed", range(5))
def test_it_is_a_sorted_list(seed: int) -> None:
    chance = random.Random(seed)
    ids, expected = SortedIds(), list[str]()
    for _ in range(200):
        new = f"run-{chance.randrange(150)}" + "é" * chance.randrange(3)
        place = ids.insert(new)
        if new in expected:
            assert place is None
        else:
            insort(expected, new)
            assert place == expected.index(new)
    assert list(ids) == expected
    assert SortedIds([*expected, *expected[::2]])[:] == expected
    assert (ids[0], ids[-1], len(ids)) == (expected[0], expected[-1], len(expected))
    assert [ids[5:50:7], ids[::-1], ids[-3:]] == [expected[5:50:7], expected[::-1], expected[-3:]]
    for wanted in (*expected[::9], "", "run", "run-3x", "z"):
        assert ids.place(wanted) == bisect_left(expected, wanted)
        assert ids.find(wanted) == (expected.index(wanted) if wanted in expected else None)
        assert (wanted in ids) is (wanted in expected)


def test_there_is_nothing_in_an_empty_one() -> None:
    ids = SortedIds()
    assert (list(ids), ids[:], ids.find("a"), ids.place("a"), "a" in ids) == ([], [], None, 0, False)
    with pytest.raises(IndexError):
        ids[0]
