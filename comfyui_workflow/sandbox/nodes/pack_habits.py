"""Nodes with habits of node packs: they queue their prompt again, save under names with placeholders, show
files that they did not make, or need the file of the editor."""

import re
import time
from pathlib import Path
from typing import Any

from PIL import Image

from comfyui_workflow.sandbox.node import Folders, InputTypes, NodeContext, NodeResult
from comfyui_workflow.sandbox.nodes.odd_results import PackNode
from comfyui_workflow.sandbox.nodes.resampling import to_eight_bits
from comfyui_workflow.sandbox.nodes.typed_node import IMAGE, Pixels, choice, hidden, integer, required, text

_PLACEHOLDER = re.compile(r"\[time\(.*?\)\]|\{[^}]*\}|%[A-Za-z]+%?")
_DATE = "2026-11-30"


class AlwaysRuns(PackNode):
    OUTPUT_NODE = True

    @classmethod
    def is_changed(cls, folders: Folders, **widgets: Any) -> object:
        return float("nan")


class SandboxMetaBatch(AlwaysRuns):
    DISPLAY_NAME = "Meta batch (sandbox)"
    DESCRIPTION = "Makes a video in several prompts: each one but the last queues the next one."

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(image=IMAGE, rounds=integer(3, 1, 1000), prefix=text(default="meta"))

    def run(self, context: NodeContext, *, image: Pixels, rounds: int, prefix: str) -> NodeResult:
        count = context.temp_dir / f".rounds_of_{context.node_id}"
        done = int(count.read_text()) + 1 if count.exists() else 1
        context.step(0, 1)
        if done < rounds:
            count.write_text(str(done))
            context.queue_again()
            return NodeResult(ui={"unfinished_batch": [True]})
        count.unlink(missing_ok=True)
        name = f"{prefix}_{time.time_ns()}.gif"
        _save(image, context.output_dir / name)
        return NodeResult(ui={"gifs": [{"filename": name, "subfolder": "", "type": "output"}]})


class SandboxSaveDated(AlwaysRuns):
    DISPLAY_NAME = "Save with the date (sandbox)"
    DESCRIPTION = "Saves an image under names with placeholders, and tells ComfyUI of no file."

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            image=IMAGE, directory=text(default="[time(%Y-%m-%d)]"), name=text(default="%time_%seed")
        )

    def run(self, context: NodeContext, *, image: Pixels, directory: str, name: str) -> NodeResult:
        folder = context.output_dir / _PLACEHOLDER.sub(_DATE, directory)
        _save(image, folder / f"{_PLACEHOLDER.sub(_DATE, name)}_{time.time_ns()}.png")
        return NodeResult(ui={"images": []})


class SandboxSaveCaption(AlwaysRuns):
    DISPLAY_NAME = "Save with a caption (sandbox)"
    DESCRIPTION = "Saves an image and a text beside it, and tells ComfyUI of the image only."

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(
            image=IMAGE, prefix=text(default="captioned"), caption=text(), extension=choice([".txt", ".md"])
        )

    def run(
        self, context: NodeContext, *, image: Pixels, prefix: str, caption: str, extension: str
    ) -> NodeResult:
        file = context.output_dir / f"{prefix}_{time.time_ns()}.png"
        _save(image, file)
        file.with_suffix(extension).write_text(caption)
        subfolder = str(file.parent.relative_to(context.output_dir))
        entry = {"filename": file.name, "subfolder": subfolder.removeprefix("."), "type": "output"}
        return NodeResult(ui={"images": [entry]})


class SandboxShowFile(AlwaysRuns):
    DISPLAY_NAME = "Show a file (sandbox)"
    DESCRIPTION = "Shows a file that exists already, as loaders show what they load."

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return required(name=text(default="photo.png"), folder=choice(["input", "output", "temp"]))

    def run(self, context: NodeContext, *, name: str, folder: str) -> NodeResult:
        subfolder, _, filename = name.rpartition("/")
        return NodeResult(ui={"images": [{"filename": filename, "subfolder": subfolder, "type": folder}]})


class SandboxReadEditorFile(AlwaysRuns):
    DISPLAY_NAME = "Read the editor's file (sandbox)"
    DESCRIPTION = "Reads a value from the file of the editor, which a prompt may lack."

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return hidden(extra_pnginfo="EXTRA_PNGINFO")

    def run(self, context: NodeContext) -> NodeResult:
        extra_pnginfo: Any = context.extra_pnginfo
        return NodeResult(ui={"text": [str(len(extra_pnginfo["workflow"]["nodes"]))]})


def _save(image: Pixels, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(to_eight_bits(image[0, :, :, :3])).save(file)
