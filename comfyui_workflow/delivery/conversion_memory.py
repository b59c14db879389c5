"""Memory for conversions of images: an estimate for each, and a limit for all of them together.

An encoder of JPEG writes while it reads, unless an option makes it look at the whole image first. An encoder
of WebP always holds the whole image. The numbers are measured with libvips 8.18 and its own codecs.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.runs.image_conversion import JPEG_FORMATS, ImageConversion

MOST_BYTES = 1024**3
STREAMED_PIXELS = 64_000_000
"""A JPEG with more pixels is written while it is read, unless an option of the request forbids it."""
_JPEG_BYTES = 6
_WEBP_BYTES = 5
_LOSSLESS_BYTES = 15
_WHOLE_IMAGE_OPTIONS = ("optimizeCoding", "progressive", "trellisQuantisation", "optimizeScans", "mozjpeg")


def options_for(conversion: ImageConversion, pixels: int) -> Mapping[str, Any]:
    """Returns the options to apply. `optimizeCoding` changes the size of a file by a few percent, and no
    pixel: by default a large image is written without it."""
    options = conversion.effective_options
    asks_for_it = any(conversion.options.get(name) for name in _WHOLE_IMAGE_OPTIONS)
    if conversion.format not in JPEG_FORMATS or pixels <= STREAMED_PIXELS or asks_for_it:
        return options
    return {**options, "optimizeCoding": False}


def needed_bytes(format_: str, options: Mapping[str, Any], pixels: int) -> int:
    """Estimates the memory of the encoder."""
    if format_ in JPEG_FORMATS:
        return pixels * _JPEG_BYTES if any(options.get(name) for name in _WHOLE_IMAGE_OPTIONS) else 0
    is_lossless = options["lossless"] or options["nearLossless"]
    return pixels * (_LOSSLESS_BYTES if is_lossless else _WEBP_BYTES)


class MemoryBudget:
    """A number of bytes that several threads share. Thread-safe."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._changed = threading.Condition()
        self._taken_bytes = 0

    @contextmanager
    def taken(self, count_bytes: int, stop: CancelToken) -> Iterator[None]:
        """Waits until so many bytes are free. More than there are is as many as there are. Raises:
        Stopped."""
        wanted = min(count_bytes, self.most_bytes)
        with stop.notifying(self._changed), self._changed:
            self._changed.wait_for(lambda: stop.is_set or self._taken_bytes + wanted <= self.most_bytes)
            stop.check()
            self._taken_bytes += wanted
        try:
            yield
        finally:
            with self._changed:
                self._taken_bytes -= wanted
                self._changed.notify_all()
