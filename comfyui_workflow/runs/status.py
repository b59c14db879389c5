"""The words for a run, its nodes and its files, and the shape of its id: what clients know a run by.

Apart from the model, so that a command which only shows runs imports nothing of how they are kept.
"""

import re
from enum import StrEnum


class RunStatus(StrEnum):
    """The five words of the native API."""

    QUEUED = "queued"
    EXECUTING = "executing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_finished(self) -> bool:
        return self in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)


class Phase(StrEnum):
    """What we are doing for the run just now; finer than its status."""

    WAITING = "waiting"
    CONNECTING = "connecting"
    UPLOADING = "uploading"
    SUBMITTING = "submitting"
    QUEUED = "queued"
    EXECUTING = "executing"
    DOWNLOADING = "downloading"
    FINISHED = "finished"


class NodeStatus(StrEnum):
    PENDING = "pending"
    EXECUTING = "executing"
    EXECUTED = "executed"
    FAILED = "failed"


class FileType(StrEnum):
    """What an output file is, for the person who opens it."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
    MODEL_3D = "3d"
    TEXT = "text"
    OTHER = "file"


def is_run_id(text: str) -> bool:
    return re.fullmatch(r"comfyui_workflow_[0-9]{1,12}_[0-9a-f]{1,32}", text) is not None
