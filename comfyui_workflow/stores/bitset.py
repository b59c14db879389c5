"""Sets of positions as bits. A set of a hundred thousand runs takes twelve kilobytes, and the intersection of
two such sets takes microseconds."""

from array import array
from collections.abc import Iterable, Iterator, Sequence

_WORD = 64


class Bits:
    """A mutable set of positions. Not thread-safe."""

    __slots__ = ("_bytes", "_value")

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._value: int | None = 0

    def add(self, position: int) -> None:
        missing = position // 8 + 1 - len(self._bytes)
        if missing > 0:
            self._bytes.extend(bytes(missing + len(self._bytes) // 4))
        self._bytes[position // 8] |= 1 << (position % 8)
        self._value = None

    def discard(self, position: int) -> None:
        if position // 8 < len(self._bytes):
            self._bytes[position // 8] &= ~(1 << (position % 8))
            self._value = None

    @property
    def value(self) -> int:
        """The set as an integer: bit n is set if n is in the set."""
        if self._value is None:
            self._value = int.from_bytes(self._bytes, "little")
        return self._value


class Positions:
    """A set of positions that is usually small. Up to 512 positions take 4 bytes each; more are kept as bits.
    Not thread-safe."""

    __slots__ = ("_bits", "_few")

    _MOST = 512

    def __init__(self) -> None:
        self._few = array("I")
        self._bits: Bits | None = None

    def add(self, position: int) -> None:
        if self._bits is not None:
            self._bits.add(position)
            return
        self._few.append(position)
        if len(self._few) > self._MOST:
            self._bits = Bits()
            for each in self._few:
                self._bits.add(each)
            self._few = array("I")

    def discard(self, position: int) -> None:
        if self._bits is not None:
            self._bits.discard(position)
        elif position in self._few:
            self._few.remove(position)

    @property
    def few(self) -> Sequence[int]:
        """All positions of a small set; empty for a large set, whose positions are in `many`."""
        return self._few

    @property
    def many(self) -> int:
        """All positions of a large set, as bits; 0 for a small set."""
        return 0 if self._bits is None else self._bits.value


def union(sets: Iterable[Positions]) -> int:
    many, few = 0, Bits()
    for each in sets:
        many |= each.many
        for position in each.few:
            few.add(position)
    return many | few.value


def bits_of(positions: Iterable[int]) -> int:
    found = Bits()
    for position in positions:
        found.add(position)
    return found.value


def below(position: int) -> int:
    """Returns the set of all positions less than `position`."""
    return (1 << position) - 1


def highest_first(bits: int) -> Iterator[int]:
    """Yields the positions of a set in descending order."""
    words = memoryview(bits.to_bytes((bits.bit_length() // _WORD + 1) * 8, "little")).cast("Q")
    for number in range(len(words) - 1, -1, -1):
        word = words[number]
        while word:
            top = word.bit_length() - 1
            yield number * _WORD + top
            word ^= 1 << top
