"""How many files and sockets this process may have open."""

import resource
from contextlib import suppress

WANTED = 65_536


def raise_open_files_limit() -> None:
    """Raises the soft limit as far as the hard limit allows, and no further than anybody needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):  # a container may forbid it: then the soft limit counts
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def open_files_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return WANTED if soft == resource.RLIM_INFINITY else soft
