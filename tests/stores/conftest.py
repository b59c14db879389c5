"""A disk that the test can make full."""

import os
import threading
from collections.abc import Iterator

import pytest


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """While set, every write of a file fails as it does on a full disk."""
    is_full = threading.Event()
    opened, write = os.fdopen, os.write

    def fdopen(descriptor: int, *arguments: str, **options: int) -> object:
        if is_full.is_set():
            os.close(descriptor)
            raise OSError(28, "No space left on device")
        return opened(descriptor, *arguments, **options)

    def write_half(descriptor: int, content: bytes) -> int:
        if not is_full.is_set():
            return write(descriptor, content)
        if len(content) > 1:
            return write(descriptor, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("comfyui_workflow.files.atomic_write.os.fdopen", fdopen)
    monkeypatch.setattr("comfyui_workflow.files.atomic_write.os.write", write_half)
    yield is_full
    is_full.clear()
