"""Conversion of an output image to JPEG or WebP, with libvips: the library below sharp, so every option of
sharp has the same effect.

Videos, sounds, animated images and other files stay as they are. The graph that ComfyUI wrote into the image
is not copied.
"""

import errno
import os
from functools import cache
from pathlib import Path
from typing import Any

from comfyui_workflow.errors import WorkflowError
from comfyui_workflow.files.disk_flush import flush_to_disk
from comfyui_workflow.runs.image_conversion import JPEG_FORMATS, ImageConversion
from comfyui_workflow.runs.model import FileType, OutputFile

MOST_PIXELS = 0x3FFF * 0x3FFF
"""The limit of sharp. A small file can contain an image that does not fit into the memory."""


class NotConverted(WorkflowError):
    """An image cannot be converted. The message says why."""

    code = "not_converted"


def is_convertible(output: OutputFile) -> bool:
    """True for an image, by the name of its file."""
    return output.file_type is FileType.IMAGE and output.text is None


def convert_image(source: Path, target: Path, conversion: ImageConversion) -> bool:
    """Writes the converted image to `target`. False if the image is animated: then nothing is written.

    Raises: NotConverted, OSError."""
    vips = _vips()
    try:
        image = _opened(vips, source)
        if _is_animated(image, source):
            return False
        if image.width * image.height > MOST_PIXELS:
            raise NotConverted(f"it has {image.width} x {image.height} pixels, more than are converted")
        _write(vips, _upright_srgb(vips, image, source), target, conversion)
    except vips.Error as error:
        target.unlink(missing_ok=True)
        if os.strerror(errno.ENOSPC) in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
        raise NotConverted(_reason(error)) from error
    flush_to_disk([target])
    return True


def _write(vips: Any, image: Any, target: Path, conversion: ImageConversion) -> None:
    options = conversion.effective_options
    save = image.jpegsave_target if conversion.format in JPEG_FORMATS else image.webpsave_target
    arguments = _jpeg_arguments(options) if conversion.format in JPEG_FORMATS else _webp_arguments(options)
    save(vips.Target.new_to_file(str(target)), keep="none", **arguments)


def _jpeg_arguments(options: dict[str, Any]) -> dict[str, Any]:
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


def _webp_arguments(options: dict[str, Any]) -> dict[str, Any]:
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
