"""How ComfyUI 0.3.64 declared the node classes where it differs from 0.33.0.

The classes themselves are as in 0.33.0.
"""

from dataclasses import dataclass, field
from typing import Any

from comfyui_workflow.sandbox.nodes.sampling import SAMPLERS


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """The differences of one class. None: as in 0.33.0. `without` has the inputs that came later."""

    category: str | None = None
    display_name: str | None = None
    outputs: tuple[str, ...] | None = None
    inputs: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    without: tuple[str, ...] = ()


_SAMPLERS = [name for name in SAMPLERS if not name.startswith("exp_heun")]

EARLIER: dict[str, Earlier] = {
    "LoadImageMask": Earlier(category="mask"),
    "SaveImage": Earlier(outputs=()),
    "PreviewImage": Earlier(outputs=()),
    "MaskPreview": Earlier(category="mask", display_name="MaskPreview", outputs=()),
    "SaveAnimatedWEBP": Earlier(
        category="image/animation",
        display_name="SaveAnimatedWEBP",
        outputs=(),
        inputs={
            "filename_prefix": (
                "STRING",
                {"default": "ComfyUI"},
            ),
            "method": (["default", "fastest", "slowest"],),
        },
    ),
    "SaveAnimatedPNG": Earlier(
        category="image/animation",
        display_name="SaveAnimatedPNG",
        outputs=(),
        inputs={
            "filename_prefix": (
                "STRING",
                {"default": "ComfyUI"},
            ),
            "compress_level": (
                "INT",
                {"default": 4, "min": 0, "max": 9},
            ),
        },
    ),
    "ImageScaleToTotalPixels": Earlier(display_name="", without=("resolution_steps",)),
    "ImageScaleToMaxDimension": Earlier(
        display_name="ImageScaleToMaxDimension",
        inputs={"upscale_method": (["area", "lanczos", "bilinear", "nearest-exact", "bilinear", "bicubic"],)},
    ),
    "ResizeAndPadImage": Earlier(
        display_name="ResizeAndPadImage",
        inputs={
            "padding_color": (["white", "black"],),
            "interpolation": (["area", "bicubic", "nearest-exact", "bilinear", "lanczos"],),
        },
    ),
    "ImageInvert": Earlier(category="image", display_name="Invert Image"),
    "ImageCrop": Earlier(display_name="Image Crop"),
    "ImageFlip": Earlier(
        display_name="ImageFlip", inputs={"flip_method": (["x-axis: vertically", "y-axis: horizontally"],)}
    ),
    "ImageRotate": Earlier(
        display_name="ImageRotate",
        inputs={"rotation": (["none", "90 degrees", "180 degrees", "270 degrees"],)},
    ),
    "ImagePadForOutpaint": Earlier(
        category="image",
        inputs={
            "feathering": (
                "INT",
                {"default": 40, "min": 0, "max": 16384, "step": 1},
            )
        },
    ),
    "ImageBlur": Earlier(category="image/postprocessing", display_name=""),
    "ImageSharpen": Earlier(
        category="image/postprocessing",
        display_name="",
        inputs={
            "sharpen_radius": (
                "INT",
                {"default": 1, "min": 1, "max": 31, "step": 1},
            ),
            "sigma": (
                "FLOAT",
                {"default": 1.0, "min": 0.1, "max": 10.0, "step": 0.01},
            ),
            "alpha": (
                "FLOAT",
                {"default": 1.0, "min": 0.0, "max": 5.0, "step": 0.01},
            ),
        },
    ),
    "ImageBlend": Earlier(category="image/postprocessing", display_name=""),
    "ImageQuantize": Earlier(category="image/postprocessing", display_name=""),
    "EmptyImage": Earlier(display_name="EmptyImage"),
    "ImageBatch": Earlier(category="image", display_name="Batch Images"),
    "RepeatImageBatch": Earlier(display_name="RepeatImageBatch"),
    "ImageFromBatch": Earlier(
        display_name="ImageFromBatch",
        inputs={
            "batch_index": (
                "INT",
                {"default": 0, "min": 0, "max": 4095},
            )
        },
    ),
    "SolidMask": Earlier(category="mask", display_name="SolidMask"),
    "InvertMask": Earlier(category="mask", display_name="InvertMask"),
    "CropMask": Earlier(category="mask", display_name="CropMask"),
    "ThresholdMask": Earlier(category="mask", display_name="ThresholdMask"),
    "MaskComposite": Earlier(
        category="mask",
        display_name="MaskComposite",
        inputs={"operation": (["multiply", "add", "subtract", "and", "or", "xor"],)},
    ),
    "FeatherMask": Earlier(category="mask", display_name="FeatherMask"),
    "GrowMask": Earlier(
        category="mask",
        display_name="GrowMask",
        inputs={
            "tapered_corners": (
                "BOOLEAN",
                {"default": True},
            )
        },
    ),
    "MaskToImage": Earlier(category="mask"),
    "ImageToMask": Earlier(category="mask", inputs={"channel": (["red", "green", "blue", "alpha"],)}),
    "ImageColorToMask": Earlier(
        category="mask",
        display_name="ImageColorToMask",
        inputs={
            "color": (
                "INT",
                {"default": 0, "min": 0, "max": 16777215, "step": 1, "display": "color"},
            )
        },
    ),
    "ImageCompositeMasked": Earlier(category="image", display_name="ImageCompositeMasked"),
    "JoinImageWithAlpha": Earlier(category="mask/compositing"),
    "SplitImageWithAlpha": Earlier(category="mask/compositing"),
    "PrimitiveString": Earlier(category="utils/primitive", display_name="String"),
    "PrimitiveStringMultiline": Earlier(category="utils/primitive", display_name="String (Multiline)"),
    "PrimitiveInt": Earlier(
        category="utils/primitive",
        inputs={
            "value": (
                "INT",
                {"min": -9223372036854775807, "max": 9223372036854775807, "control_after_generate": True},
            )
        },
    ),
    "PrimitiveFloat": Earlier(
        category="utils/primitive",
        inputs={
            "value": (
                "FLOAT",
                {"min": -9223372036854775807, "max": 9223372036854775807},
            )
        },
    ),
    "PrimitiveBoolean": Earlier(category="utils/primitive"),
    "StringConcatenate": Earlier(category="utils/string", display_name="Concatenate"),
    "PreviewAny": Earlier(category="utils", display_name="Preview Any", outputs=()),
    "CheckpointLoaderSimple": Earlier(category="loaders"),
    "VAELoader": Earlier(category="loaders"),
    "LoraLoader": Earlier(category="loaders", display_name="Load LoRA (stand-in)"),
    "LoraLoaderModelOnly": Earlier(category="loaders", display_name="LoraLoaderModelOnly (stand-in)"),
    "CLIPSetLastLayer": Earlier(
        category="conditioning",
        inputs={
            "stop_at_clip_layer": (
                "INT",
                {"default": -1, "min": -24, "max": -1, "step": 1},
            )
        },
    ),
    "CLIPTextEncode": Earlier(category="conditioning"),
    "ConditioningCombine": Earlier(category="conditioning"),
    "VAEDecode": Earlier(category="latent"),
    "VAEEncode": Earlier(category="latent"),
    "EmptyLatentImage": Earlier(category="latent"),
    "LatentUpscale": Earlier(category="latent"),
    "LatentUpscaleBy": Earlier(category="latent"),
    "SetLatentNoiseMask": Earlier(category="latent/inpaint"),
    "KSampler": Earlier(category="sampling", inputs={"sampler_name": (_SAMPLERS,)}),
    "KSamplerAdvanced": Earlier(
        category="sampling",
        inputs={
            "add_noise": (["enable", "disable"],),
            "sampler_name": (_SAMPLERS,),
            "start_at_step": (
                "INT",
                {"default": 0, "min": 0, "max": 10000},
            ),
            "end_at_step": (
                "INT",
                {"default": 10000, "min": 0, "max": 10000},
            ),
            "return_with_leftover_noise": (["disable", "enable"],),
        },
    ),
}
