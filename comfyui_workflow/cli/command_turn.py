"""Commands that start their own server on the same data: one at a time, the others wait."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from comfyui_workflow.cli.messages import say
from comfyui_workflow.errors import ConfigurationError
from comfyui_workflow.files.atomic_write import make_private_directory

CHECK_INTERVAL_S = 1.0


@contextmanager
def command_turn(data_dir: Path, is_needless: Callable[[], bool]) -> Iterator[bool]:
    """Yields True as soon as no other command has its own server on these data; False if `is_needless`
    returns true before. Says that it waits. Raises: ConfigurationError if the directory cannot be used."""
    try:
        make_private_directory(data_dir)
        lock = FileLock(data_dir / "commands.lock", mode=0o600)
        is_mine = _acquired(lock, data_dir, is_needless)
    except OSError as error:
        raise ConfigurationError(f"The data directory {data_dir} cannot be used: {error.strerror}") from error
    try:
        yield is_mine
    finally:
        lock.release()


def _acquired(lock: FileLock, data_dir: Path, is_needless: Callable[[], bool]) -> bool:
    """Raises: OSError."""
    wait_s = 0.0
    while True:
        try:
            lock.acquire(timeout=wait_s)
        except Timeout:
            if wait_s == 0:
                say(
                    f"Another command runs its own server on {data_dir}: this one waits until that ends. To "
                    "run several commands at once, start comfyui-workflow serve first."
                )
            elif is_needless():
                return False
            wait_s = CHECK_INTERVAL_S
        else:
            return True
