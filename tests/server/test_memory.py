"""Tests of the memory settings of the server process."""

import gc

from comfyui_workflow.server.memory import collect_garbage_often


def test_objects_of_the_start_are_excluded_from_garbage_collection() -> None:
    try:
        collect_garbage_often()
        assert gc.get_freeze_count() > 10_000
        assert len(gc.get_objects()) < 1_000
    finally:
        gc.unfreeze()
