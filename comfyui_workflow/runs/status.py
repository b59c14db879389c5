"""The status words of runs, nodes and files, and the format of a run id: what clients use.

This module is separate from the model, so that a command that only shows runs does not import the storage
code.
"""

import re
from enum import StrEnum


class RunStatus(StrEnum):
    """The five status words of the native API."""

    QUEUED = "queued"
    EXECUTING = "executing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_finished(self) -> bool:
        return self in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)


class Phase(StrEnum):
    """The current action of the server for the run; finer than the status."""

    WAITING = "waiting"
    CONNECTING = "connecting"
    PROVISIONING = "provisioning"
    """What the instance lacks is installed there."""
    UPLOADING = "uploading"
    SUBMITTING = "submitting"
    QUEUED = "queued"
    EXECUTING = "executing"
    DOWNLOADING = "downloading"
    DELIVERING = "delivering"
    FINISHED = "finished"


class NodeStatus(StrEnum):
    PENDING = "pending"
    EXECUTING = "executing"
    EXECUTED = "executed"
    FAILED = "failed"


class FileType(StrEnum):
    """The kind of an output file, as the user sees it."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
    MODEL_3D = "3d"
    TEXT = "text"
    OTHER = "file"


def is_run_id(text: str) -> bool:
    return re.fullmatch(r"comfyui_workflow_[0-9]{1,12}_[0-9a-f]{1,32}", text) is not None


def is_batch_id(text: str) -> bool:
    return re.fullmatch(r"batch_[0-9]{1,12}_[0-9a-f]{1,32}", text) is not None
