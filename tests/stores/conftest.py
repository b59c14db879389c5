"""A disk that is full when the test says so."""

import os
import threading
from collections.abc import Iterator

import pytest


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """While set, every write of a file fails as it does on a full disk."""
    is_full = threading.Event()
    write = os.fdopen

    def fdopen(descriptor: int, *arguments: str, **options: int) -> object:
        if is_full.is_set():
            os.close(descriptor)
            raise OSError(28, "No space left on device")
        return write(descriptor, *arguments, **options)

    monkeypatch.setattr("comfyui_workflow.stores.atomic.os.fdopen", fdopen)
    yield is_full
    is_full.clear()
