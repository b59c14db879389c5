"""Memory settings of the server process."""

import ctypes
import gc
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""`M_TRIM_THRESHOLD`, `M_MMAP_THRESHOLD` and `M_ARENA_MAX` of glibc's `mallopt(3)`."""
_ARENAS = 1
_OWN_MAPPING_BYTES = 1024 * 1024
_KEPT_FREE_BYTES = 4 * 1024 * 1024
_RESERVED_NAMES = 50_000


def return_freed_memory() -> None:
    """Makes glibc's allocator return freed memory to the system. Does nothing without glibc.

    By default, glibc raises the size from which an allocation gets a mapping of its own to that of the
    largest one that was freed, up to 32 MB. After one large response the next ones come from the heap, which
    keeps their space. With a fixed size, each large allocation is returned when it is freed.

    By default glibc uses up to eight arenas per core, and assigns threads to them. An arena is returned to
    the system only when all of it is free. If several threads have each handled a response of many megabytes,
    that memory is then held several times. Python runs one thread at a time, so one arena costs no
    performance."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, _ARENAS)
        mallopt(_MMAP_THRESHOLD, _OWN_MAPPING_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_FREE_BYTES)


def collect_no_garbage() -> None:
    """Stops the garbage collector during the start: imports leave next to no garbage, and the search for it
    is a tenth of the time. To be called before the imports; `collect_garbage_often` ends it."""
    gc.disable()


def collect_garbage_often() -> None:
    """Excludes all objects that exist now from garbage collection. To be called after the start.

    A full collection takes place when a quarter of the objects are new. With the objects of all imported
    modules, that was once in hundreds of runs. Until then the garbage of broken connections (exceptions,
    tracebacks, threads) filled the memory. Without them few objects are left, so a full collection takes less
    than a millisecond, and can be frequent."""
    gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(700, 3, 1)
    gc.collect()  # the collector counts the objects anew


def reserve_interned_names() -> None:
    """Gives Python's table of interned strings the size that it would get later.

    `pathlib` interns each part of each path, so the names of each run are entered, and their places in the
    table are not used again before it is rebuilt. After about two thousand runs it would be rebuilt at twice
    its size, which looks like a leak of 2 to 4 MB. It keeps its size when it is rebuilt the next time."""
    names = [sys.intern(f"reserved {number}") for number in range(_RESERVED_NAMES)]
    del names
