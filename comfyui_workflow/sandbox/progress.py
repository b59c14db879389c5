"""Progress of the nodes of the running prompt, sent to its client at every change."""

import io
import json
import struct
from typing import Any

from PIL import Image

from comfyui_workflow.sandbox.faults import FaultBoard
from comfyui_workflow.sandbox.websockets import BinaryEvent, SocketHub

_PREVIEW_SIZE = 512
_LEGACY_FORMATS = {"JPEG": 1, "PNG": 2}


class ProgressBoard:
    """Sends `progress_state` with all nodes that have started, and `progress` and previews for steps.

    Without a client id, messages go to all sockets. Use it on the worker thread only.
    """

    def __init__(self, *, prompt_id: str, client_id: str | None, hub: SocketHub, faults: FaultBoard) -> None:
        self._prompt_id = prompt_id
        self._client_id = client_id
        self._hub = hub
        self._faults = faults
        self._nodes: dict[str, dict[str, Any]] = {}

    def start(self, node_id: str) -> None:
        self._put(node_id, value=0.0, maximum=1.0, state="running")

    def finish(self, node_id: str) -> None:
        maximum = self._nodes[node_id]["max"] if node_id in self._nodes else 1
        self._put(node_id, value=maximum, maximum=maximum, state="finished")

    def step(
        self,
        node_id: str,
        value: int,
        maximum: int,
        preview: Image.Image | None,
        *,
        is_preview: bool = True,
    ) -> None:
        """Reports a step. With `is_preview=False` the picture is sent as PNG in its full size."""
        encode = _encode if is_preview else _encode_png
        picture = encode(preview) if preview is not None else None
        image_format = "JPEG" if preview is None else _format_of(preview) if is_preview else "PNG"
        with_metadata = self._hub.supports(self._client_id, "supports_preview_metadata")
        self._put(node_id, value=value, maximum=maximum, state="running")
        if picture and with_metadata:
            self._send_with_metadata(node_id, picture, image_format)
        data = {"value": value, "max": maximum, "prompt_id": self._prompt_id, "node": node_id}
        self._hub.send_soon("progress", data, self._client_id)
        if picture and not with_metadata:
            framed = struct.pack(">I", _LEGACY_FORMATS[image_format]) + picture
            self._hub.send_binary_soon(BinaryEvent.PREVIEW_IMAGE, framed, self._client_id)

    def _put(self, node_id: str, *, value: float, maximum: float, state: str) -> None:
        entry = {"value": value, "max": maximum, "state": state, "node_id": node_id}
        self._nodes[node_id] = {**entry, "prompt_id": self._prompt_id, **_lineage(node_id)}
        if self._faults.version.knows_prompt_ids:
            data = {"prompt_id": self._prompt_id, "nodes": self._nodes}
            self._hub.send_soon("progress_state", data, self._client_id)

    def _send_with_metadata(self, node_id: str, picture: bytes, image_format: str) -> None:
        about = {"node_id": node_id, "prompt_id": self._prompt_id, **_lineage(node_id)}
        metadata = json.dumps({**about, "image_type": f"image/{image_format.lower()}"}).encode()
        framed = struct.pack(">I", len(metadata)) + metadata + picture
        self._hub.send_binary_soon(BinaryEvent.PREVIEW_IMAGE_WITH_METADATA, framed, self._client_id)


def _lineage(node_id: str) -> dict[str, str | None]:
    return {"display_node_id": node_id, "parent_node_id": None, "real_node_id": node_id}


def _format_of(preview: Image.Image) -> str:
    """Returns "JPEG", or "PNG" if the node has marked the preview as PNG."""
    return "PNG" if preview.format == "PNG" else "JPEG"


def _encode_png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _encode(preview: Image.Image) -> bytes:
    """Encodes a preview, scaled (also up) so that its longer side has `_PREVIEW_SIZE` pixels."""
    scale = _PREVIEW_SIZE / max(preview.size)
    size = (max(1, round(preview.width * scale)), max(1, round(preview.height * scale)))
    buffer = io.BytesIO()
    preview.convert("RGB").resize(size).save(buffer, format=_format_of(preview), quality=95)
    return buffer.getvalue()
