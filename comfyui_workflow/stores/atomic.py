"""Files that are either the old content or the new, never half of it."""

import contextlib
import os
import secrets
from pathlib import Path


def write_atomically(path: Path, content: bytes, *, must_reach_disk: bool = False) -> None:
    """Replace a file in one step, readable by its owner only. A symbolic link in its place is replaced, not
    followed. Raises: OSError; then the old file is as it was."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if must_reach_disk:
                file.flush()
                os.fsync(descriptor)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def make_private_directory(path: Path) -> None:
    """Raises: OSError."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
