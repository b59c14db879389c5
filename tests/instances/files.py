"""Instance registry with a file, as in a server."""

import time
from collections.abc import Callable
from pathlib import Path

from comfyui_workflow.instances.entries import complete
from comfyui_workflow.instances.registry import InstanceRegistry
from comfyui_workflow.stores.files.instances import FileInstanceStore
from comfyui_workflow.stores.files.logins import FileLoginStore


def directory_in(file: Path, clock: Callable[[], float] = time.monotonic) -> InstanceRegistry:
    return InstanceRegistry(FileInstanceStore(file, complete, clock), FileLoginStore(file.parent / "logins"))
