"""Node classes of the recorded scenarios that the sandbox does not have."""

import math
import threading
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from comfyui_workflow.sandbox.faults import OutOfMemory
from comfyui_workflow.sandbox.node import (
    Folders,
    InputTypes,
    NodeContext,
    NodeResult,
    SandboxNode,
)

_LIMIT_S = 20.0

_OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 23.64 GiB "
    "of which 1.20 GiB is free."
)


def picture() -> np.ndarray:
    return np.zeros((1, 16, 16, 3), np.float32)


class Pace:
    """Limit on the total steps of all LabSleep nodes. A test raises it instead of waiting for time to
    pass."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._allowed = math.inf
        self._done = 0

    def allow(self, steps: float) -> None:
        """Sets the maximum number of steps of all nodes since the start."""
        with self._changed:
            self._allowed = steps
            self._changed.notify_all()

    @property
    def done(self) -> int:
        """Total number of steps so far."""
        return self._done

    def step(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._done < self._allowed, timeout=_LIMIT_S)
            self._done += 1


class LabSleep(SandboxNode):
    """Runs steps at the pace of the test. With 0 steps, the node takes one step and cannot be interrupted."""

    pace: ClassVar[Pace] = Pace()
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return {
            "required": {
                "seconds": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 600.0}),
                "steps": ("INT", {"default": 4, "min": 0, "max": 10000}),
                "preview": (["none", "JPEG", "PNG"],),
                "preview_px": ("INT", {"default": 64, "min": 8, "max": 4096}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1}),
            },
            "optional": {"image": ("IMAGE",)},
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    def execute(self, context: NodeContext, **inputs: Any) -> NodeResult:
        steps, size = inputs["steps"], inputs["preview_px"]
        preview = Image.new("RGB", (size, size)) if inputs["preview"] != "none" else None
        if preview:
            preview.format = inputs["preview"]
        for step in range(1, steps + 1):
            self.pace.step()
            context.step(step, steps, preview)
        if not steps:
            self.pace.step()
        return NodeResult(result=(picture(),))


class LabRaise(SandboxNode):
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        kinds = ["RuntimeError", "ValueError", "KeyError", "SystemExit", "KeyboardInterrupt"]
        return {
            "required": {"message": ("STRING", {}), "kind": (kinds,)},
            "optional": {"image": ("IMAGE",)},
        }

    def execute(self, context: NodeContext, **inputs: Any) -> NodeResult:
        kinds: dict[str, type[BaseException]] = {
            "RuntimeError": RuntimeError,
            "ValueError": ValueError,
            "KeyError": KeyError,
            "SystemExit": SystemExit,
        }
        raise kinds[inputs["kind"]](inputs["message"])


class LabOOM(SandboxNode):
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        kinds = [
            "torch.cuda.OutOfMemoryError",
            "torch.OutOfMemoryError",
            "MemoryError",
            "RuntimeError_alloc",
            "AcceleratorError",
        ]
        return {"required": {"kind": (kinds,)}, "optional": {"image": ("IMAGE",)}}

    def execute(self, context: NodeContext, **inputs: Any) -> NodeResult:
        match inputs["kind"]:
            case "MemoryError":
                raise MemoryError(_OUT_OF_MEMORY)
            case "RuntimeError_alloc":
                raise RuntimeError("Allocation on device 0 would exceed allowed memory. (out of memory)")
            case "AcceleratorError":
                tail = "CUDA kernel errors might be asynchronously reported at some other API call"
                raise RuntimeError(f"CUDA error: out of memory\n{tail}")
            case _:
                raise OutOfMemory(_OUT_OF_MEMORY)


class LabCombo(SandboxNode):
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return {
            "required": {
                "big": ([f"opt{number:03}" for number in range(40)],),
                "small": (["a", "b"],),
                "num": ([1, 2, 3],),
            },
            "optional": {"v3": ("COMBO", {"options": ["x", "y"]})},
        }

    def execute(self, context: NodeContext, **inputs: Any) -> NodeResult:
        return NodeResult(result=(picture(),))


class LabValidate(SandboxNode):
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return {"required": {"v": ("INT", {"default": 0}), "name": ("STRING", {"default": "ok"})}}

    @classmethod
    def validate_inputs(cls, folders: Folders, name: str) -> bool | str:
        if name == "boom":
            raise RuntimeError("validate raised")
        return name != "false" and (name == "ok" or f"bad name {name}")

    def execute(self, context: NodeContext, **inputs: Any) -> NodeResult:
        return NodeResult(result=(picture(),))


class LabOutputs(SandboxNode):
    """In the recording, this node saves many kinds of files; here it only shows a text."""

    OUTPUT_NODE = True

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        texts = {name: ("STRING", {}) for name in ("filename_prefix", "text")}
        return {"required": {"images": ("IMAGE",), **texts, "seed": ("INT", {})}}

    def execute(self, context: NodeContext, **inputs: Any) -> NodeResult:
        return NodeResult(ui={"text": [inputs["text"]]})


class CheckpointLoaderSimple(SandboxNode):
    """The class without any checkpoint, as on the recorded machine."""

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")

    @classmethod
    def input_types(cls, folders: Folders) -> InputTypes:
        return {"required": {"ckpt_name": ([],)}}


def lab_classes(pace: Pace) -> dict[str, type[SandboxNode]]:
    paced = type("LabSleep", (LabSleep,), {"pace": pace})
    others = (LabRaise, LabOOM, LabCombo, LabValidate, LabOutputs, CheckpointLoaderSimple)
    return {node_class.__name__: node_class for node_class in (paced, *others)}
