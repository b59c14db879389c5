"""Graphs without collectors: what takes the place of a DistributedCollector."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from comfyui_workflow.distributed.model import AudioFile, ImageFile
from comfyui_workflow.distributed.nodes import (
    AUDIO_SLOT,
    IMAGES_SLOT,
    Link,
    as_link,
    free_ids,
    inputs_of,
    needed_link,
    new_node,
    relinked,
    used_outputs,
)
from comfyui_workflow.workflows.graph import Graph

LEAST_ALPHA = 1e-6
"""LoadImage gives the mask 1 - alpha, and JoinImageWithAlpha subtracts it from 1 again. The rounding errors
of both make SaveImage, which rounds down, lose a step of 95 of the 256 values. This much, taken from the
mask, keeps all."""


def image_saver(link: Link, prefix: str) -> dict[str, Any]:
    return new_node("SaveImage", "Save Image", images=link, filename_prefix=prefix)


def audio_saver(link: Link, prefix: str) -> dict[str, Any]:
    return new_node("SaveAudio", "Save Audio", audio=link, filename_prefix=prefix)


def no_audio() -> dict[str, Any]:
    """What a collector without audio gives: one sample of silence."""
    return new_node("EmptyAudio", "No audio", duration=1 / 44100, sample_rate=44100, channels=2)


def without_collectors(graph: Graph, collectors: Iterable[str]) -> dict[str, Any]:
    """Returns the graph in which these collectors pass on what they get. Raises: InvalidGraph."""
    gone = tuple(collectors)
    links: dict[tuple[str, int], Link] = {}
    added: dict[str, Any] = {}
    used, ids = used_outputs(graph), free_ids(graph)
    for node_id in gone:
        links[node_id, IMAGES_SLOT] = needed_link(graph, node_id, "images")
        audio = as_link(inputs_of(graph, node_id).get("audio"))
        if audio is None and (node_id, AUDIO_SLOT) in used:
            silence = next(ids)
            added[silence] = no_audio()
            audio = [silence, 0]
        if audio is not None:
            links[node_id, AUDIO_SLOT] = audio
    kept = {node_id: node for node_id, node in graph.items() if node_id not in gone}
    return relinked({**kept, **added}, links)


class Loaders:
    """Builds the nodes that load collected files."""

    def __init__(self, ids: Iterator[str]) -> None:
        self.nodes: dict[str, Any] = {}
        self.images: dict[tuple[str, int], int] = {}
        """Number of pictures of the loaders."""
        self.audio: dict[tuple[str, int], AudioFile] = {}
        self._ids = ids

    def load_images(self, own: Link | None, files: Sequence[ImageFile]) -> Link | None:
        """Returns a link to one batch of all pictures, of the size of the first; None if there is none.

        `own`: pictures that come first. If a picture has an alpha channel, all get one.
        """
        has_alpha = any(file.has_alpha for file in files)
        joined = own
        for file in files:
            loader = self._add("LoadImage", "Collected pictures", image=file.name)
            self.images[loader, 0] = file.count
            images: Link = [loader, 0]
            if has_alpha:
                images = [self._with_alpha(loader, file), 0]
                self.images[images[0], 0] = file.count
            joined = images if joined is None else [self._batch(joined, images), 0]
        return joined

    def load_audio(self, own: Link | None, files: Sequence[AudioFile]) -> Link:
        """Returns a link to all sounds, one after the other. AudioConcat makes stereo of mono sounds, so
        these are split again.

        `own`: a sound that comes first.
        """
        joined = own
        for file in files:
            loader = self._add("LoadAudio", "Collected sound", audio=file.name)
            self.audio[loader, 0] = file
            joined = [loader, 0] if joined is None else [self._concat(joined, [loader, 0]), 0]
        if joined is None:
            silence = next(self._ids)
            self.nodes[silence] = no_audio()
            return [silence, 0]
        if own is None and len(files) > 1 and all(file.channels == 1 for file in files):
            return [self._add("SplitAudioChannels", "Mono", audio=joined), 0]
        return joined

    def _add(self, class_type: str, title: str, **inputs: object) -> str:
        node_id = next(self._ids)
        self.nodes[node_id] = new_node(class_type, title, **inputs)
        return node_id

    def _batch(self, first: Link, second: Link) -> str:
        return self._add("ImageBatch", "All pictures", image1=first, image2=second)

    def _concat(self, first: Link, second: Link) -> str:
        return self._add("AudioConcat", "All sounds", audio1=first, audio2=second, direction="after")

    def _with_alpha(self, loader: str, file: ImageFile) -> str:
        mask: Link = [loader, 1]
        if file.has_alpha:
            least = self._add(
                "SolidMask", "Rounding", value=LEAST_ALPHA, width=file.width, height=file.height
            )
            mask = [
                self._add(
                    "MaskComposite",
                    "Mask without loss",
                    destination=mask,
                    source=[least, 0],
                    x=0,
                    y=0,
                    operation="subtract",
                ),
                0,
            ]
        return self._add("JoinImageWithAlpha", "Alpha", image=[loader, 0], alpha=mask)
