"""Checks of what workers with the plugin send to a master, with the messages of the plugin.

This server gathers results itself, over SSH. So these routes serve programs that test a master: a job that
was prepared is known for an hour, and its results are checked, not kept.
"""

import base64
import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from comfyui_workflow.api.comfyui_distributed.audio import check_audio
from comfyui_workflow.api.comfyui_distributed.errors import InvalidEnvelope, Missing, Undecodable
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.files.file_types import usual_ending

Body = Mapping[str, Any]
MOST_JOBS = 256
KEPT_S = 3600.0
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif"})
_PNG = b"\x89PNG\r\n\x1a\n"
_LAST_CHUNK = b"IEND\xaeB`\x82"
_PNG_URI = re.compile(r"(?i)data:image/png;base64,")


class PreparedJobs:
    """Ids of prepared jobs. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._prepared_s: OrderedDict[str, float] = OrderedDict()

    def add(self, job_id: str) -> None:
        with self._lock:
            self._prepared_s[job_id] = time.monotonic()
            self._prepared_s.move_to_end(job_id)
            while len(self._prepared_s) > MOST_JOBS:
                self._prepared_s.popitem(last=False)

    def require(self, job_id: str) -> None:
        """Raises: Missing."""
        with self._lock:
            prepared_s = self._prepared_s.get(job_id)
        if prepared_s is None or time.monotonic() - prepared_s > KEPT_S:
            raise Missing("job not initialized")


def prepared_id(body: Body) -> str:
    """Raises: InvalidRequest."""
    job_id = body.get("multi_job_id")
    if not job_id:
        raise InvalidRequest("Missing multi_job_id")
    return str(job_id)[:200]


def check_result(body: Body) -> str:
    """Checks the picture of a worker, and returns the id of its job. Raises: InvalidEnvelope, Undecodable."""
    checks = {
        "job_id: expected non-empty string": _is_text(body.get("job_id")),
        "worker_id: expected non-empty string": _is_text(body.get("worker_id")),
        "batch_idx: expected non-negative integer": _is_index(body.get("batch_idx")),
        "image: expected non-empty base64 PNG string": _is_text(body.get("image")),
        "audio: expected object when provided": body.get("audio") is None or isinstance(body["audio"], dict),
        "is_last: expected boolean": isinstance(body.get("is_last"), bool),
    }
    problems = [message for message, is_right in checks.items() if not is_right]
    if problems:
        raise InvalidEnvelope(problems)
    _check_image(body["image"].strip())
    if body.get("audio") is not None:
        check_audio(body["audio"])
    return str(body["job_id"]).strip()


def check_tile_request(body: Body) -> None:
    """Checks a message about a tile job. There is none here. Raises: InvalidRequest, Missing."""
    if not body.get("worker_id") or not body.get("multi_job_id"):
        raise InvalidRequest("Missing worker_id or multi_job_id")
    raise Missing("Job not found")


def check_tiles(form: Mapping[str, str], files: Mapping[str, bytes]) -> None:
    """Checks the tiles of a worker. Raises: InvalidRequest, Missing."""
    _check_sender(form)
    described = form.get("tiles_metadata")
    if described is None:
        raise InvalidRequest("Missing tiles_metadata")
    try:
        tiles = json.loads(described)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"Invalid tiles_metadata JSON: {error}") from error
    if not isinstance(tiles, list):
        raise InvalidRequest("tiles_metadata must be a list")
    for number in range(len(tiles)):
        if f"tile_{number}" not in files:
            raise InvalidRequest(f"Missing tile data for index {number}")
        if usual_ending(files[f"tile_{number}"]) not in PICTURES:
            raise InvalidRequest(f"Invalid image data for tile {number}: it is no picture")
    raise Missing("Job not found")


def check_picture(form: Mapping[str, str], files: Mapping[str, bytes]) -> None:
    """Checks the picture of a worker. Raises: InvalidRequest, Missing."""
    _check_sender(form)
    has_picture = "full_image" in files and form.get("image_idx", "").isdecimal()
    if not has_picture and form.get("is_last", "").lower() != "true":
        raise InvalidRequest("Missing image data or invalid request")
    raise Missing("Job not found")


def _check_sender(form: Mapping[str, str]) -> None:
    if form.get("multi_job_id") is None or form.get("worker_id") is None:
        raise InvalidRequest("Missing multi_job_id or worker_id")


def _check_image(given: str) -> None:
    if given.startswith("data:") and not _PNG_URI.match(given):
        if "," not in given:
            raise Undecodable("Field 'image' data URL is malformed.")
        raise Undecodable("Field 'image' must be a PNG data URL when using data:* format.")
    try:
        content = base64.b64decode(_PNG_URI.sub("", given, count=1), validate=True)
    except ValueError as error:
        raise Undecodable("Field 'image' is not valid base64 PNG data.") from error
    if not content:
        raise Undecodable("Field 'image' decoded to empty PNG data.")
    if usual_ending(content) not in PICTURES:
        raise Undecodable("Failed to decode PNG image payload: it is no picture")
    if content.startswith(_PNG) and not content.endswith(_LAST_CHUNK):
        raise Undecodable("Failed to decode PNG image payload: it is cut off")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_index(value: object) -> bool:
    return isinstance(value, int) and value >= 0
