"""The sandbox's own nodes, for tests of a client: a slow node, a failing node, and outputs of every kind."""

import hashlib
import json
import math
import struct
import time
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from comfyui_workflow.sandbox.node import Folders, InputTypes, NodeContext, NodeResult
from comfyui_workflow.sandbox.nodes.file_names import SaveTarget, find_save_target
from comfyui_workflow.sandbox.nodes.resampling import to_eight_bits
from comfyui_workflow.sandbox.nodes.saving import ui_entry
from comfyui_workflow.sandbox.nodes.typed_node import (
    IMAGE,
    Pixels,
    TypedNode,
    V3Node,
    choice,
    hidden_keys,
    hidden_png_texts,
    integer,
    number,
    optional,
    outputs,
    required,
    seed,
    switch,
    text,
)

_LONGEST_WAIT_S = 0.1


class SandboxSlow(TypedNode):
    DISPLAY_NAME = "Slow (sandbox)"
    DESCRIPTION = (
        "Passes an image on after a number of steps with a duration in seconds; another seed runs it again."
    )
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            image=IMAGE,
            steps=integer(10, 1, 10000),
            seconds_per_step=number(0.1, 0.0, 60.0, step=0.01),
        ) | optional(seed=seed(), preview=switch(False))

    def run(
        self,
        context: NodeContext,
        *,
        image: Pixels,
        steps: int,
        seconds_per_step: float,
        seed: int = 0,
        preview: bool = False,
    ) -> NodeResult:
        picture = _small_picture(image) if preview else None
        for step in range(1, steps + 1):
            _wait(context, seconds_per_step, step - 1, steps)
            context.step(step, steps, picture)
        return outputs(image)


class SandboxRaise(TypedNode):
    DISPLAY_NAME = "Raise (sandbox)"
    DESCRIPTION = "Fails with a message."
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(image=IMAGE, message=text(default="failed as asked", multiline=True))

    def run(self, context: NodeContext, *, image: Pixels, message: str) -> NodeResult:
        raise RuntimeError(message)


class SandboxPartner(V3Node):
    """The stand-in for a partner node. It needs no account, and calls nothing."""

    CATEGORY = "partner/image/Sandbox"
    DISPLAY_NAME = "Partner image (sandbox)"
    DESCRIPTION = "Looks like a node that costs credits, but costs nothing: paints one colour."
    MODULE = "comfy_api_nodes.nodes_sandbox"
    RETURN_TYPES = ("IMAGE",)
    API_NODE = True

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(prompt=text(default="", multiline=True), seed=seed()) | hidden_keys()

    def run(self, context: NodeContext, *, prompt: str, seed: int) -> NodeResult:
        color = hashlib.sha256(f"{prompt} {seed}".encode()).digest()[:3]
        level = np.array([*color], np.float32) / np.float32(255)
        return outputs(np.tile(level, (1, 64, 64, 1)))


class SandboxBrokenPack(TypedNode):
    DISPLAY_NAME = "Broken pack (sandbox)"
    DESCRIPTION = (
        "Fails before the graph is checked, like a pack with a faulty hook: POST /prompt has the status 500."
    )
    MODULE = "custom_nodes.sandbox_broken_pack"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(image=IMAGE, message=text(default="the hook of the pack failed", multiline=False))

    @classmethod
    def on_prompt(cls, graph: Any) -> None:
        nodes = graph.values() if isinstance(graph, dict) else ()
        for node in nodes:
            if isinstance(node, dict) and node.get("class_type") == cls.__name__:
                raise RuntimeError(node["inputs"]["message"])


class SandboxText(TypedNode):
    DISPLAY_NAME = "Text (sandbox)"
    DESCRIPTION = "Shows a text, and passes it on."
    RETURN_TYPES = ("STRING",)
    OUTPUT_NODE = True

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(text=text(default="", multiline=True))

    def run(self, context: NodeContext, *, text: str) -> NodeResult:
        return NodeResult(result=(text,), ui={"text": [text]})


class SandboxFiles(TypedNode):
    DISPLAY_NAME = "Files (sandbox)"
    DESCRIPTION = (
        "Saves a small file of the given kind, and reports it under the key that real nodes of that kind use."
    )
    OUTPUT_NODE = True
    KINDS = ("image", "gif", "video", "saved video", "audio", "3d")

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(kind=choice(cls.KINDS), filename_prefix=text(default="sandbox/file"))

    def run(self, context: NodeContext, *, kind: str, filename_prefix: str) -> NodeResult:
        target = find_save_target(context.output_dir, filename_prefix)
        match kind:
            case "image":
                return _written(target, "images", "png", _picture_bytes("PNG"))
            case "gif":
                return _written(
                    target, "gifs", "gif", _picture_bytes("GIF"), format="image/gif", frame_rate=8.0
                )
            case "video":
                return _written(target, "video", "mp4", _mp4_bytes())
            case "saved video":  # the same keys as ComfyUI's own SaveVideo
                saved = _written(target, "images", "mp4", _mp4_bytes())
                return NodeResult(ui={**(saved.ui or {}), "animated": [True]})
            case "audio":
                return _written(target, "audio", "flac", _flac_bytes())
            case "3d":
                return _written(target, "3d", "glb", _glb_bytes())
            case _:
                raise ValueError(f"There is no kind {kind!r}.")


class SandboxSaveAs(TypedNode):
    DISPLAY_NAME = "Save as (sandbox)"
    DESCRIPTION = "Saves the first image under this very name, over the file that is there."
    OUTPUT_NODE = True

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return (
            required(image=IMAGE, filename=text(default="final.png"), with_graph=switch(True))
            | hidden_png_texts()
        )

    def run(self, context: NodeContext, *, image: Pixels, filename: str, with_graph: bool) -> NodeResult:
        texts = PngInfo()
        if with_graph:
            texts.add_text("prompt", json.dumps(context.prompt))
        picture = Image.fromarray(to_eight_bits(image[0, :, :, :3]))
        picture.save(context.output_dir / filename, format="PNG", pnginfo=texts)
        return NodeResult(ui={"images": [{"filename": filename, "subfolder": "", "type": "output"}]})


def _wait(context: NodeContext, wait_s: float, value: int, maximum: int) -> None:
    """Waits in short intervals, and checks for an interrupt between them."""
    intervals = max(1, math.ceil(wait_s / _LONGEST_WAIT_S))
    for interval in range(intervals):
        if interval:
            context.step(value, maximum)
        time.sleep(wait_s / intervals)


def _small_picture(image: Pixels) -> Image.Image:
    picture = Image.fromarray(to_eight_bits(image[0, :, :, :3]))
    picture.thumbnail((128, 128))
    return picture


def _written(target: SaveTarget, ui_key: str, extension: str, content: bytes, **more: object) -> NodeResult:
    name = target.file_name(extension)
    (target.directory / name).write_bytes(content)
    return NodeResult(ui={ui_key: [ui_entry(target, name) | more]})


def _picture_bytes(image_format: str) -> bytes:
    first, second = (Image.fromarray(np.full((16, 16, 3), level, np.uint8)) for level in (64, 192))
    file = BytesIO()
    if image_format == "GIF":
        first.save(file, image_format, save_all=True, append_images=[second], duration=125)
    else:
        first.save(file, image_format)
    return file.getvalue()


def _mp4_bytes() -> bytes:
    """Returns an MP4 container without a track: a file type box and an empty media data box."""
    brands = b"isom" + struct.pack(">I", 512) + b"isommp41"
    return struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + struct.pack(">I", 8) + b"mdat"


def _flac_bytes() -> bytes:
    """Returns a FLAC file with only its required block: 44.1 kHz, one channel, 16 bits, no samples."""
    rate_channels_bits_samples = (44100 << 44) | (0 << 41) | (15 << 36)
    sizes = struct.pack(">HH", 4096, 4096) + bytes(6)
    block = sizes + struct.pack(">Q", rate_channels_bits_samples) + bytes(16)
    return b"fLaC" + struct.pack(">I", (0x80 << 24) | len(block)) + block


def _glb_bytes() -> bytes:
    """Returns a binary glTF file of an empty scene."""
    scene = json.dumps({"asset": {"version": "2.0"}, "scenes": [{}], "scene": 0}).encode()
    scene += b" " * (-len(scene) % 4)
    chunk = struct.pack("<I4s", len(scene), b"JSON") + scene
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunk)) + chunk
