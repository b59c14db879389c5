"""The memory of the server process."""

import ctypes

_ARENA_MAX = -8
"""`M_ARENA_MAX` of glibc's `mallopt(3)`."""
_ARENAS = 2


def keep_memory_in_few_arenas() -> None:
    """By default glibc keeps up to eight heaps for each core, one for whichever thread asked first, and gives
    none of them back before all of it is free: an answer of many megabytes that each of some threads has once
    had is then held as often. Python runs one thread at a time, so few heaps cost nothing. Elsewhere than
    with glibc nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, _ARENAS)
