"""A sorted sequence of ids in one block of memory.

A list holds an object for each id. Such small objects stay for the life of the server, between those of the
runs that come and go, and keep the memory around them from being returned to the system.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import overload


class SortedIds(Sequence[str]):
    """Distinct ids in ascending order. Not thread-safe."""

    __slots__ = ("_ends", "_text")

    def __init__(self, ids: Iterable[str] = ()) -> None:
        encoded = [each.encode() for each in sorted(set(ids))]
        self._text = bytearray(b"".join(encoded))
        self._ends = array("Q", accumulate(map(len, encoded)))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._at(each) for each in range(*index.indices(len(self)))]
        return self._at(index + len(self) if index < 0 else index)

    def __iter__(self) -> Iterator[str]:
        return map(self._at, range(len(self)))

    def __contains__(self, wanted: object) -> bool:
        return isinstance(wanted, str) and self.find(wanted) is not None

    def place(self, wanted: str) -> int:
        """Returns the position of an id, or the position that it would have."""
        if not self._ends or self._at(len(self) - 1) < wanted:
            return len(self)
        return bisect_left(self, wanted)

    def find(self, wanted: str) -> int | None:
        place = self.place(wanted)
        return place if place < len(self) and self._at(place) == wanted else None

    def insert(self, new: str) -> int | None:
        """Inserts an id and returns its position; None if it is there already. Takes long only if many ids
        are greater."""
        place = self.place(new)
        if place < len(self) and self._at(place) == new:
            return None
        encoded, begin = new.encode(), self._begin(place)
        self._text[begin:begin] = encoded
        self._ends.insert(place, begin)
        for later in range(place, len(self)):
            self._ends[later] += len(encoded)
        return place

    def _at(self, position: int) -> str:
        """Raises: IndexError."""
        return self._text[self._begin(position) : self._ends[position]].decode()

    def _begin(self, position: int) -> int:
        return self._ends[position - 1] if position else 0
