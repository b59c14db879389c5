"""Sets of positions as bits: a set of a hundred thousand runs is twelve kilobytes, and two of them are
intersected in microseconds."""

from array import array
from collections.abc import Iterable, Iterator, Sequence

_WORD = 64


class Bits:
    """A set of positions that can be changed. Not thread-safe."""

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
        """As an integer: bit n is set where n is in the set."""
        if self._value is None:
            self._value = int.from_bytes(self._bytes, "little")
        return self._value


class Positions:
    """A set of positions that is mostly small, at 4 bytes for each. Not thread-safe."""

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
        """All of them, unless `many` tells them."""
        return self._few

    @property
    def many(self) -> int:
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
    """All positions less than that one."""
    return (1 << position) - 1


def highest_first(bits: int) -> Iterator[int]:
    """The positions in a set."""
    words = memoryview(bits.to_bytes((bits.bit_length() // _WORD + 1) * 8, "little")).cast("Q")
    for number in range(len(words) - 1, -1, -1):
        word = words[number]
        while word:
            top = word.bit_length() - 1
            yield number * _WORD + top
            word ^= 1 << top
