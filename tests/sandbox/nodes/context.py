"""Node context for these tests: directories of the test, and a list of the reported steps."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from comfyui_workflow.sandbox.node import Folders, Interrupted, NodeResult
from comfyui_workflow.sandbox.nodes import NODE_CLASSES
from comfyui_workflow.sandbox.nodes.typed_node import Pixels


@dataclass(kw_only=True)
class Context:
    input_dir: Path
    output_dir: Path
    temp_dir: Path
    prompt: dict[str, Any] = field(default_factory=dict)
    extra_pnginfo: dict[str, Any] | None = None
    node_id: str = "1"
    steps: list[tuple[int, int]] = field(default_factory=list)
    previews: list[Image.Image] = field(default_factory=list)
    interrupt_after: int | None = None

    @property
    def folders(self) -> Folders:
        return Folders(input_dir=self.input_dir, output_dir=self.output_dir, temp_dir=self.temp_dir)

    def step(self, value: int, maximum: int, preview: Image.Image | None = None) -> None:
        if self.interrupt_after is not None and len(self.steps) >= self.interrupt_after:
            raise Interrupted
        self.steps.append((value, maximum))
        if preview is not None:
            self.previews.append(preview)

    def queue_again(self) -> None:
        raise NotImplementedError

    def send_picture(self, value: int, maximum: int, picture: Image.Image) -> None:
        self.step(value, maximum, picture)

    def run(self, class_type: str, **inputs: Any) -> NodeResult:
        return NODE_CLASSES[class_type]().execute(self, **inputs)

    def values(self, class_type: str, **inputs: Any) -> tuple[Any, ...]:
        return self.run(class_type, **inputs).result

    def value(self, class_type: str, **inputs: Any) -> Any:
        """Runs the node and returns its first output."""
        return self.values(class_type, **inputs)[0]

    def shown(self, class_type: str, **inputs: Any) -> dict[str, Any]:
        ui = self.run(class_type, **inputs).ui
        assert ui is not None
        return ui


def random_image(width: int, height: int, *, channels: int = 3, batch: int = 1, seed: int = 1) -> Pixels:
    """Returns a random image with 8-bit levels, like a loaded image."""
    levels = np.random.default_rng(seed).integers(0, 256, (batch, height, width, channels))
    return levels.astype(np.float32) / np.float32(255)


def random_mask(width: int, height: int, *, batch: int = 1, seed: int = 2) -> Pixels:
    return random_image(width, height, channels=1, batch=batch, seed=seed)[..., 0]


def flat_image(width: int, height: int, *color: float) -> Pixels:
    return np.full((1, height, width, len(color)), color, np.float32)
