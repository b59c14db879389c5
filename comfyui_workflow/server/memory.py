"""Memory settings of the server process."""

import ctypes
import gc

_ARENA_MAX = -8
"""`M_ARENA_MAX` of glibc's `mallopt(3)`."""
_ARENAS = 1


def limit_malloc_arenas() -> None:
    """Limits the number of heaps (arenas) of glibc's allocator. Does nothing without glibc.

    By default glibc uses up to eight arenas per core, and assigns threads to them. An arena is returned to
    the system only when all of it is free. If several threads have each handled a response of many megabytes,
    that memory is then held several times. Python runs one thread at a time, so one arena costs no
    performance."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, _ARENAS)


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
    gc.set_threshold(700, 10, 1)
    gc.collect()  # the collector counts the objects anew
