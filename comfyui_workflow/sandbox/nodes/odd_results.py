"""Output nodes that give their results in the shapes of node packs: over the websocket only, with other names
of files, with texts under other keys, or without telling ComfyUI."""

import os
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from comfyui_workflow.sandbox.node import Folders, InputTypes, NodeContext, NodeResult
from comfyui_workflow.sandbox.nodes.resampling import to_eight_bits
from comfyui_workflow.sandbox.nodes.typed_node import IMAGE, Pixels, TypedNode, choice, required, switch, text

_SAMPLES = 8000
_LENGTHS = {
    "right": 36 + 2 * _SAMPLES,
    "zero": 0,
    "sox": 0x7FFFF024,
    "half": 0x80000000,
    "ffmpeg": 0xFFFFFFFF,
}


class SaveImageWebsocket(TypedNode):
    CATEGORY = "api/image"
    DISPLAY_NAME = "Save Image (Websocket)"
    DESCRIPTION = "Sends images over the websocket, and saves no file."
    OUTPUT_NODE = True

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(images=IMAGE)

    @classmethod
    def is_changed(cls, folders: Folders, **widgets: Any) -> object:
        return time.time()

    def run(self, context: NodeContext, *, images: Pixels) -> NodeResult:
        for number, image in enumerate(images):
            context.send_picture(number, len(images), Image.fromarray(to_eight_bits(image[:, :, :3])))
        return NodeResult()


class PackNode(TypedNode):
    MODULE = "custom_nodes.sandbox"


class SandboxSaveElsewhere(PackNode):
    DISPLAY_NAME = "Save elsewhere (sandbox)"
    DESCRIPTION = "Saves the first image at a path, relative to the output folder, and tells it in a way."
    OUTPUT_NODE = True
    WAYS = (
        *("relative", "absolute subfolder", "absolute name", "windows", "dots"),
        *("text path", "paths", "name and subfolder", "nested", "one object", "no type"),
    )

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(image=IMAGE, path=text(default="video/a.png"), told=choice(cls.WAYS))

    def run(self, context: NodeContext, *, image: Pixels, path: str, told: str) -> NodeResult:
        file = context.output_dir / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(to_eight_bits(image[0, :, :, :3])).save(file, format="PNG")
        return NodeResult(ui=_told(told, context.output_dir, file))


class SandboxShow(PackNode):
    DISPLAY_NAME = "Show (sandbox)"
    DESCRIPTION = "Shows a text under a key, as a list or as one text."
    OUTPUT_NODE = True

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(text=text(default="hello world"), key=text(default="string"), is_list=switch(True))

    def run(self, context: NodeContext, *, text: str, key: str, is_list: bool) -> NodeResult:
        shown: Any = [text] if is_list else text
        return NodeResult(ui={key: shown})


class SandboxSound(PackNode):
    DISPLAY_NAME = "Sound (sandbox)"
    DESCRIPTION = "Saves a WAV file whose header has the length of a stream."
    OUTPUT_NODE = True

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(length=choice([*_LENGTHS]), name=text(default="sound.wav"))

    def run(self, context: NodeContext, *, length: str, name: str) -> NodeResult:
        data = bytes(2 * _SAMPLES)
        riff = _LENGTHS[length]
        sound = struct.pack("<IHHIIHH", 16, 1, 1, _SAMPLES, 2 * _SAMPLES, 2, 16)
        head = b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt " + sound
        tail = b"data" + struct.pack("<I", max(0, riff - 36)) + data
        (context.output_dir / name).write_bytes(head + tail)
        return NodeResult(ui={"audio": [{"filename": name, "subfolder": "", "type": "output"}]})


class SandboxExport(PackNode):
    DISPLAY_NAME = "Export (sandbox)"
    DESCRIPTION = "Saves a file, and tells ComfyUI nothing: the path is its result."
    RETURN_TYPES = ("STRING",)
    OUTPUT_NODE = True

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            prefix=text(default="mesh/thing"),
            suffix=text(default="_1.glb"),
            folder=choice(["output", "temp"]),
        )

    def run(self, context: NodeContext, *, prefix: str, suffix: str, folder: str) -> NodeResult:
        root = context.output_dir if folder == "output" else context.temp_dir
        file = root / f"{prefix}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"glTF" + struct.pack("<II", 2, 12))
        return NodeResult(result=(str(file),))


class SandboxModel(PackNode):
    DISPLAY_NAME = "Model (sandbox)"
    DESCRIPTION = "Saves a model with an old modification time, like a copy of a file, and shows its path."
    OUTPUT_NODE = True
    SHOWN = ("new", "given")

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            model_file=text(default="old.glb"), shown=choice(cls.SHOWN), folder=choice(["output", "temp"])
        )

    def run(self, context: NodeContext, *, model_file: str, shown: str, folder: str) -> NodeResult:
        root = context.output_dir if folder == "output" else context.temp_dir
        name = f"3d/model_{time.time_ns()}.glb" if shown == "new" else model_file
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"glTF" + struct.pack("<II", 2, 12))
        os.utime(file, (1_000_000_000, 1_000_000_000))
        return NodeResult(ui={"result": [name, None, []]})


class SandboxCombine(PackNode):
    DISPLAY_NAME = "Combine (sandbox)"
    DESCRIPTION = "Makes a video, which is kept in the output folder, or only in the temp folder."
    OUTPUT_NODE = True

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(image=IMAGE, save_output=switch(True))

    def run(self, context: NodeContext, *, image: Pixels, save_output: bool) -> NodeResult:
        root, kind = (context.output_dir, "output") if save_output else (context.temp_dir, "temp")
        name = f"combined_{time.time_ns()}.gif"
        Image.fromarray(to_eight_bits(image[0, :, :, :3])).save(root / name)
        return NodeResult(ui={"gifs": [{"filename": name, "subfolder": "", "type": kind, "frame_rate": 8.0}]})


def _told(way: str, root: Path, file: Path) -> Mapping[str, Any]:
    """Returns the `ui` for a file."""
    name, inside = file.name, file.relative_to(root) if file.is_relative_to(root) else file
    subfolder = str(inside.parent)
    ways: dict[str, dict[str, Any]] = {
        "relative": {"images": [_entry(name, os.path.relpath(file.parent, root))]},
        "absolute subfolder": {"images": [_entry(name, str(file.parent))]},
        "absolute name": {"images": [_entry(str(file), "")]},
        "windows": {"images": [_entry(name, subfolder.replace("/", "\\"))]},
        "dots": {"images": [_entry(f"./{name}", f"./x/../{subfolder}/.")]},
        "text path": {"result": [str(inside), {"position": [0, 0, 1]}, None]},
        "paths": {"files": [str(file)]},
        "name and subfolder": {"video": [str(inside), ""]},
        "nested": {"data": [{"files": [_entry(name, subfolder)]}]},
        "one object": {"images": _entry(name, subfolder)},
        "no type": {"images": [{"filename": name, "subfolder": subfolder}]},
    }
    return ways[way]


def _entry(name: str, subfolder: str) -> dict[str, str]:
    return {"filename": name, "subfolder": subfolder, "type": "output"}
