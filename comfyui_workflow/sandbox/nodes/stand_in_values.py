"""Values of the links between stand-in nodes: they represent a model, a text or a picture."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from comfyui_workflow.sandbox.nodes.resampling import resize
from comfyui_workflow.sandbox.nodes.typed_node import Latent, Pixels

PIXELS_PER_LATENT = 8


@dataclass(frozen=True, kw_only=True)
class StandInModel:
    """A MODEL or a CLIP: only a name, and the changes made to it."""

    name: str
    changes: tuple[str, ...] = ()

    def changed(self, change: str) -> Self:
        return replace(self, changes=(*self.changes, change))


@dataclass(frozen=True, kw_only=True)
class StandInVae:
    name: str


@dataclass(frozen=True, kw_only=True)
class StandInText:
    """One part of a CONDITIONING; a CONDITIONING is a list of them."""

    text: str
    clip: StandInModel


def latent_of(pictures: Pixels, **more: Any) -> Latent:
    """Returns a LATENT with the full pictures and their samples: samples alone would decode blurred."""
    small = resize(
        pictures, pictures.shape[2] // PIXELS_PER_LATENT, pictures.shape[1] // PIXELS_PER_LATENT, "area"
    )
    channels = np.concatenate([small, small.mean(axis=-1, keepdims=True)], axis=-1) * 2 - 1
    return more | {"samples": np.moveaxis(channels, -1, 1), "pictures": pictures}


def pictures_of(latent: Latent) -> Pixels:
    """Returns the pictures in a LATENT, or else pictures that are computed from its samples."""
    samples = latent["samples"]
    height, width = (PIXELS_PER_LATENT * side for side in samples.shape[2:])
    pictures: Pixels | None = latent.get("pictures")
    if pictures is not None and pictures.shape[:3] == (len(samples), height, width):
        return pictures
    colors = np.moveaxis(samples[:, :3], 1, -1) / 2 + np.float32(0.5)
    return np.clip(resize(colors, width, height, "bicubic"), 0, 1)
