"""Check of the sound of a worker, with the messages of the plugin: float32 samples as base64."""

import base64
import math
from collections.abc import Mapping
from typing import Any

from comfyui_workflow.api.comfyui_distributed.errors import Undecodable
from comfyui_workflow.distributed.values import as_integer

MOST_BYTES = 256 * 1024 * 1024
_SAMPLE_BYTES = 4


def check_audio(audio: Mapping[str, Any]) -> None:
    """Raises: Undecodable."""
    data = audio.get("data")
    if not isinstance(data, str) or not data.strip():
        raise Undecodable("Field 'audio.data' must be a non-empty base64 string.")
    _check_rate(audio.get("sample_rate", 44100))
    expected_bytes = math.prod(_shape(audio.get("shape"))) * _SAMPLE_BYTES
    if audio.get("dtype", "float32") != "float32":
        raise Undecodable("Field 'audio.dtype' must be 'float32'.")
    if expected_bytes > MOST_BYTES:
        raise Undecodable(f"Field 'audio.data' is larger than {MOST_BYTES} bytes.")
    try:
        size = len(base64.b64decode(data.strip(), validate=True))
    except ValueError as error:
        raise Undecodable("Field 'audio.data' is not valid base64.") from error
    if size != expected_bytes:
        raise Undecodable(f"Field 'audio.data' byte size mismatch: expected {expected_bytes}, got {size}.")


def _check_rate(given: object) -> None:
    rate = as_integer(given)
    if rate is None:
        raise Undecodable("Field 'audio.sample_rate' must be an integer.")
    if rate <= 0:
        raise Undecodable("Field 'audio.sample_rate' must be positive.")


def _shape(given: object) -> list[int]:
    if not isinstance(given, list) or len(given) != 3:
        raise Undecodable("Field 'audio.shape' must be a 3-item list [batch, channels, samples].")
    sizes = [size for size in map(as_integer, given) if size is not None]
    if len(sizes) < len(given):
        raise Undecodable("Field 'audio.shape' must contain integers.")
    if sizes[0] <= 0 or sizes[1] <= 0 or sizes[2] < 0:
        raise Undecodable("Field 'audio.shape' must be [batch>0, channels>0, samples>=0].")
    return sizes
