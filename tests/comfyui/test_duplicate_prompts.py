"""Which prompts in the queue are duplicates of a run's own."""

from typing import Any, cast

from comfyui_workflow.comfyui.client import ComfyUIClient
from comfyui_workflow.comfyui.duplicate_prompts import DuplicatePrompts
from comfyui_workflow.comfyui.queue import CORRELATION_KEY, QueueSnapshot, read_queue


class Queue:
    """A ComfyUI that has nothing but a queue."""

    def __init__(self, running: list[str], pending: list[str]) -> None:
        def items(ids: list[str]) -> list[Any]:
            return [[number, each, {}, {CORRELATION_KEY: "run/1"}, []] for number, each in enumerate(ids)]

        self.snapshot = read_queue({"queue_running": items(running), "queue_pending": items(pending)})
        self.deleted: list[str] = []

    def queue(self) -> QueueSnapshot:
        return self.snapshot

    def delete_pending(self, prompt_id: str) -> None:
        self.deleted.append(prompt_id)

    def duplicates(self, correlation: str | None) -> bool:
        return DuplicatePrompts(cast(ComfyUIClient, self), "ours", correlation).drop(self.snapshot)


def test_a_prompt_of_our_id_is_a_duplicate() -> None:
    queue = Queue(running=["ours"], pending=["ours", "ours"])
    assert not queue.duplicates(None)
    assert queue.deleted == ["ours", "ours"]


def test_a_prompt_that_a_node_has_queued_is_no_duplicate() -> None:
    queue = Queue(running=["ours"], pending=["successor"])
    assert not queue.duplicates(None)
    assert queue.deleted == []


def test_a_prompt_of_another_id_is_a_duplicate_if_comfyui_chooses_the_ids() -> None:
    queue = Queue(running=["ours"], pending=["copy"])
    assert not queue.duplicates("run/1")
    assert queue.deleted == ["copy"]
