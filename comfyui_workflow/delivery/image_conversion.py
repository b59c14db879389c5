"""Conversion of an output image to JPEG or WebP, with libvips: the library below sharp, so every option of
sharp has the same effect.

Videos, sounds, animated images and other files stay as they are. The graph that ComfyUI wrote into the image
is not copied.
"""

import errno
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from comfyui_workflow.concurrency import CancelToken
from comfyui_workflow.delivery.conversion_memory import MOST_BYTES, MemoryBudget, needed_bytes, options_for
from comfyui_workflow.errors import WorkflowError
from comfyui_workflow.files.disk_flush import flush_to_disk
from comfyui_workflow.runs.image_conversion import JPEG_FORMATS, ImageConversion
from comfyui_workflow.runs.model import FileType, OutputFile

MOST_PIXELS = 0x3FFF * 0x3FFF
"""The limit of sharp. A small file can contain an image that does not fit into the memory."""

GB = 1e9
MEMORY = MemoryBudget(MOST_BYTES)
"""Of all conversions of this process."""
NEVER = CancelToken()


class NotConverted(WorkflowError):
    """An image cannot be converted. The message says why."""

    code = "not_converted"


def is_convertible(output: OutputFile) -> bool:
    """True for an image, by the name of its file."""
    return output.file_type is FileType.IMAGE and output.text is None


def convert_image(source: Path, target: Path, conversion: ImageConversion, stop: CancelToken = NEVER) -> bool:
    """Writes the converted image to `target`. False if the image is animated: then nothing is written. Waits
    while other conversions need the memory.

    Raises: NotConverted, OSError; Stopped."""
    vips = _vips()
    try:
        image = _opened(vips, source)
        if _is_animated(image, source):
            return False
        pixels = image.width * image.height
        if pixels > MOST_PIXELS:
            raise NotConverted(f"it has {image.width} x {image.height} pixels, more than are converted")
        options = options_for(conversion, pixels)
        count_bytes = needed_bytes(conversion.format, options, pixels) + _source_bytes(image)
        if count_bytes > MEMORY.most_bytes:
            raise NotConverted(_too_large(image, conversion, count_bytes))
        with MEMORY.taken(count_bytes, stop):
            _write(_upright_srgb(vips, image, source), vips, target, conversion.format, options)
    except vips.Error as error:
        target.unlink(missing_ok=True)
        if os.strerror(errno.ENOSPC) in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
        raise NotConverted(_reason(error)) from error
    flush_to_disk([target])
    return True


def _source_bytes(image: Any) -> int:
    """Returns the memory of a source that cannot be read line by line."""
    loader = image.get("vips-loader")
    is_rotated = bool(image.get_typeof("orientation")) and image.get("orientation") != 1
    is_interlaced = bool(image.get_typeof("interlaced"))
    if loader.startswith(("pngload", "jpegload")) and not is_rotated and not is_interlaced:
        return 0
    return int(image.width * image.height * image.bands * (2 if image.format == "ushort" else 1))


def _too_large(image: Any, conversion: ImageConversion, count_bytes: int) -> str:
    return (
        f"it has {image.width} x {image.height} pixels, and needs {count_bytes / GB:.1f} GB of memory as "
        f"{conversion.format} with these options, more than {MEMORY.most_bytes / GB:.1f} GB. jpeg without "
        "optimizeCoding, progressive and mozjpeg needs little memory"
    )


def _write(image: Any, vips: Any, target: Path, format_: str, options: Mapping[str, Any]) -> None:
    is_jpeg = format_ in JPEG_FORMATS
    save = image.jpegsave_target if is_jpeg else image.webpsave_target
    arguments = _jpeg_arguments(options) if is_jpeg else _webp_arguments(options)
    save(vips.Target.new_to_file(str(target)), keep="none", **arguments)


def _jpeg_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Q": options["quality"],
        "interlace": options["progressive"],
        "subsample_mode": "off" if options["chromaSubsampling"] == "4:4:4" else "on",
        "optimize_coding": options["optimizeCoding"],
        "trellis_quant": options["trellisQuantisation"],
        "overshoot_deringing": options["overshootDeringing"],
        "optimize_scans": options["optimizeScans"],
        "quant_table": options["quantisationTable"],
    }


def _webp_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Q": options["quality"],
        "alpha_q": options["alphaQuality"],
        "lossless": options["lossless"],
        "near_lossless": options["nearLossless"],
        "smart_subsample": options["smartSubsample"],
        "preset": options["preset"],
        "effort": options["effort"],
    }


def _opened(vips: Any, source: Path, access: str = "sequential") -> Any:
    return vips.Image.new_from_source(
        vips.Source.new_from_file(str(source)), "", access=access, fail_on="error"
    )


def _upright_srgb(vips: Any, image: Any, source: Path) -> Any:
    """Returns the image as it looks, because the converted file has neither orientation nor profile."""
    if image.get_typeof("orientation") and image.get("orientation") != 1:
        image = _opened(vips, source, "random").autorot()
    if image.get_typeof("icc-profile-data"):
        image = image.icc_transform("srgb")
    return image


def _is_animated(image: Any, source: Path) -> bool:
    """True for several frames. libvips reads only the first one of an animated PNG; its chunk `acTL` comes
    before the pixels."""
    with source.open("rb") as file:
        head = file.read(64 * 1024)
    return image.get_n_pages() > 1 or b"acTL" in head.partition(b"IDAT")[0]


@cache
def _vips() -> Any:
    """Imports libvips when the first image is converted. It uses one thread, and keeps no images."""
    import pyvips  # noqa: PLC0415 - a large library, which few servers need

    pyvips.block_untrusted_set(True)
    pyvips.concurrency_set(1)
    pyvips.cache_set_max(0)
    return pyvips


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[1] if len(lines) > 1 else lines[0] if lines else "no reason is known")[:300]
