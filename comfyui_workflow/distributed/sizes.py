"""How many pictures a batch has, and how long a sound is, as far as a graph shows it before it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from math import isfinite

from comfyui_workflow.distributed.nodes import as_link, inputs_of, output_of
from comfyui_workflow.distributed.values import as_integer
from comfyui_workflow.workflows.graph import Graph, sources

SOURCES = ("EmptyImage", "EmptyLatentImage", "EmptySD3LatentImage")
"""Their input `batch_size` is the size of the batch."""
KEEPING = {
    "KSampler": "latent_image",
    "KSamplerAdvanced": "latent_image",
    "SamplerCustom": "latent_image",
    "SamplerCustomAdvanced": "latent_image",
    "VAEDecode": "samples",
    "VAEDecodeTiled": "samples",
    "VAEEncode": "pixels",
    "ImageScale": "image",
    "ImageScaleBy": "image",
    "ImageScaleToTotalPixels": "image",
    "ImageUpscaleWithModel": "image",
    "ImageInvert": "image",
    "ImageBlend": "image1",
    "ImageBlur": "image",
    "ImageSharpen": "image",
    "ImageQuantize": "image",
    "ImageCrop": "image",
    "ImageFlip": "image",
    "ImageRotate": "image",
    "ImagePadForOutpaint": "image",
    "LatentUpscale": "samples",
    "LatentUpscaleBy": "samples",
}
"""Nodes that give as many pictures as this input has."""


@dataclass(frozen=True, kw_only=True)
class Sound:
    samples: int
    sample_rate: int


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of outputs, by node id and slot."""

    images: dict[tuple[str, int], int] = field(default_factory=dict)
    audio: dict[tuple[str, int], Sound] = field(default_factory=dict)

    def learn(self, node_id: str, class_type: str, inputs: Mapping[str, object]) -> None:
        """Adds the outputs of a node whose sources have been added before it."""
        if (count := self._images(class_type, inputs)) is not None and count > 0:
            self.images[node_id, 0] = count
        if (sound := self._sound(class_type, inputs)) is not None and sound.samples > 0:
            self.audio[node_id, 0] = sound

    def image_count(self, value: object) -> int | None:
        link = as_link(value)
        return None if link is None else self.images.get(output_of(link))

    def sound(self, value: object) -> Sound | None:
        link = as_link(value)
        return None if link is None else self.audio.get(output_of(link))

    def _images(self, class_type: str, inputs: Mapping[str, object]) -> int | None:
        if class_type in SOURCES:
            return as_integer(inputs.get("batch_size"))
        if (name := KEEPING.get(class_type)) is not None:
            return self.image_count(inputs.get(name))
        match class_type:
            case "ImageBatch":
                return _all((self.image_count(inputs.get("image1")), self.image_count(inputs.get("image2"))))
            case "RepeatImageBatch" | "RepeatLatentBatch":
                count = self.image_count(inputs.get("image", inputs.get("samples")))
                amount = as_integer(inputs.get("amount"))
                return None if count is None or amount is None else count * amount
            case "ImageFromBatch":
                return self._cut(inputs)
        return None

    def _cut(self, inputs: Mapping[str, object]) -> int | None:
        count, start = self.image_count(inputs.get("image")), as_integer(inputs.get("batch_index"))
        length = as_integer(inputs.get("length"))
        if count is None or start is None or length is None:
            return None
        start = max(0, min(count - 1, start + count if start < 0 else start))
        return min(count - start, length)

    def _sound(self, class_type: str, inputs: Mapping[str, object]) -> Sound | None:
        match class_type, inputs.get("duration"), as_integer(inputs.get("sample_rate")):
            case "EmptyAudio", int() | float() as duration, int() as rate if isfinite(duration * rate):
                return Sound(samples=round(duration * rate), sample_rate=rate)
            case "AudioConcat", _, _:
                first, second = self.sound(inputs.get("audio1")), self.sound(inputs.get("audio2"))
                if first and second and first.sample_rate == second.sample_rate:
                    return Sound(samples=first.samples + second.samples, sample_rate=first.sample_rate)
        return None


def sizes_of(graph: Graph) -> Sizes:
    """Returns the sizes of the outputs of a graph without cycles."""
    sizes = Sizes()
    for node_id in TopologicalSorter({node_id: sources(graph, node_id) for node_id in graph}).static_order():
        sizes.learn(node_id, graph[node_id]["class_type"], inputs_of(graph, node_id))
    return sizes


def _all(counts: tuple[int | None, ...]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def divided(total: int, parts: int) -> list[tuple[int, int]]:
    """Returns start and length of each part: one after the other, the longer ones first."""
    length, longer = divmod(total, parts)
    return [(number * length + min(number, longer), length + (number < longer)) for number in range(parts)]
