"""The types of a plan, and of the files that are collected for it."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from comfyui_workflow.distributed.apng import Png
from comfyui_workflow.distributed.flac import Flac
from comfyui_workflow.workflows.graph import Graph

MASTER_INDEX = 0
"""Seed index of the master; the first worker has 1."""


@dataclass(frozen=True, kw_only=True)
class Participant:
    """An instance that takes part."""

    participant_id: str
    is_master: bool = False


@dataclass(frozen=True, kw_only=True)
class Savers:
    """The nodes of a part that save what a collector collects: node ids, None where nothing is saved."""

    images: str | None = None
    audio: str | None = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """The work of one participant. It keeps its graph, and so its seed, when it moves to another instance."""

    participant_id: str
    seed_index: int
    """Added to the seed of each DistributedSeed."""
    graph: Graph
    savers: Mapping[str, Savers] = field(default_factory=dict)
    """By collector. The outputs of other nodes of the graph belong to the run as a whole."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    parts: tuple[Part, ...] = ()
    """In the order of their pictures. Empty if the master does all the work: `gather` is the whole
    workflow."""
    gather: Graph = field(default_factory=dict)
    """What the master does at last. Without parts it is ready for ComfyUI; else `gather_graph` completes
    it."""
    collectors: tuple[str, ...] = ()
    """The collectors that `gather_graph` needs files for."""
    notices: tuple[str, ...] = ()
    """Sentences for the log and the user: what differs from the request."""
    installed: Set[str] = frozenset()
    first_free_id: int = 1
    """The first number that is no id of a node in the whole workflow."""


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
    """A FLAC file below the master's input directory."""

    name: str
    channels: int
    sample_rate: int
    samples: int
    """Of one channel."""


@dataclass(frozen=True, kw_only=True)
class Collected:
    """The files of one collector, in the order of the parts."""

    images: tuple[ImageFile, ...] = ()
    audio: tuple[AudioFile, ...] = ()


def image_file(name: str, pictures: Sequence[Png]) -> ImageFile:
    """Describes the file that `write_animation` makes of these pictures."""
    return ImageFile(
        name=name,
        width=pictures[0].width,
        height=pictures[0].height,
        count=sum(picture.count for picture in pictures),
        has_alpha=any(picture.has_alpha for picture in pictures),
    )


def audio_file(name: str, sound: Flac) -> AudioFile:
    return AudioFile(name=name, channels=sound.channels, sample_rate=sound.sample_rate, samples=sound.samples)
