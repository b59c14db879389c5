"""The graph with which the master makes the result of what all participants rendered."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comfyui_workflow.distributed.nodes import (
    AUDIO_SLOT,
    COLLECTOR,
    IMAGES_SLOT,
    Link,
    as_link,
    free_ids,
    inputs_of,
    label,
    new_node,
    relinked,
)
from comfyui_workflow.distributed.plan import MASTER_INDEX, Plan, empty_audio
from comfyui_workflow.distributed.resolution import resolved
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.workflows.graph import Graph


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """A PNG file below the master's input directory, perhaps an animated one: each frame is a picture."""

    name: str
    width: int
    height: int
    count: int = 1
    has_alpha: bool = False


@dataclass(frozen=True, kw_only=True)
class AudioFile:
    """A sound file below the master's input directory."""

    name: str
    channels: int = 2
    sample_rate: int = 44100
    samples: int = 0


@dataclass(frozen=True, kw_only=True)
class Collected:
    """The files of one collector, in the order of the parts."""

    images: tuple[ImageFile, ...] = ()
    audio: tuple[AudioFile, ...] = ()


def gather_graph(plan: Plan, collected: Mapping[str, Collected]) -> Graph:
    """Returns the graph for the master, of plain ComfyUI nodes.

    A picture of another size than the first is scaled to the first one's by ImageBatch.
    Raises: InvalidRequest if nothing was collected for a collector.
    """
    ids = free_ids(plan.gather, plan.first_free_id)
    added: dict[str, Any] = {}
    links: dict[tuple[str, int], Any] = {}
    for collector in plan.collectors:
        files = collected.get(collector, Collected())
        own = as_link(inputs_of(plan.gather, collector).get("images"))
        links[collector, IMAGES_SLOT] = _joined_images(added, ids, own, files.images)
        if links[collector, IMAGES_SLOT] is None:
            raise InvalidRequest(f"No pictures were collected for {label(plan.gather, collector)}")
        links[collector, AUDIO_SLOT] = _joined_audio(added, ids, files.audio)
    kept = {node_id: node for node_id, node in plan.gather.items() if node["class_type"] != COLLECTOR}
    return resolved(relinked({**kept, **added}, links), MASTER_INDEX, plan.installed)


def _joined_images(
    added: dict[str, Any], ids: Iterator[str], own: Link | None, files: Sequence[ImageFile]
) -> Link | None:
    joined = own
    for file in files:
        loader = next(ids)
        added[loader] = new_node("LoadImage", "Collected pictures", image=file.name)
        joined = _batch(added, ids, joined, [loader, 0])
    return joined


def _batch(added: dict[str, Any], ids: Iterator[str], first: Link | None, second: Link) -> Link:
    if first is None:
        return second
    batch = next(ids)
    added[batch] = new_node("ImageBatch", "All pictures", image1=first, image2=second)
    return [batch, 0]


def _joined_audio(added: dict[str, Any], ids: Iterator[str], files: Sequence[AudioFile]) -> Link:
    silence = next(ids)
    added[silence] = empty_audio()
    return [silence, 0]
