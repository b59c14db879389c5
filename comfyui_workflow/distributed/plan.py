"""The plan of one workflow over several instances: what each of them renders, and what the master makes of it.

The graph of a *part* is what one participant renders: all that a DistributedCollector needs, with SaveImage (and
SaveAudio) in place of the collector. The *gather* graph is what lies behind the collectors, for the master, with
loaders of the collected files in place of the collectors (`gather_graph`). Both have plain ComfyUI nodes only.

Everything is a pure function of the graph and the participants, so a plan need not be stored: the same call
gives the same plan. The order of the pictures is that of the parts: the master's, then the workers' in theirs.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from comfyui_workflow.distributed.nodes import (
    AUDIO_SLOT,
    COLLECTOR,
    IMAGES_SLOT,
    UPSCALER,
    Link,
    as_link,
    distributed_nodes,
    downstream,
    free_ids,
    inputs_of,
    label,
    new_node,
    nodes_of,
    pruned,
    relinked,
    upstream,
)
from comfyui_workflow.distributed.resolution import resolved
from comfyui_workflow.errors import InvalidGraph, InvalidRequest
from comfyui_workflow.workflows.graph import Graph, check_graph, sink_ids

MASTER_INDEX = 0
"""Seed index of the master; the first worker has 1."""


@dataclass(frozen=True, kw_only=True)
class Participant:
    """An instance that takes part."""

    participant_id: str
    is_master: bool = False


@dataclass(frozen=True, kw_only=True)
class Savers:
    """The nodes of a part that save what a collector collects: node ids, None where there is nothing to save."""

    images: str | None = None
    audio: str | None = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one participant renders. It keeps its graph, and so its seed, when it moves to another instance."""

    participant_id: str
    seed_index: int
    """Added to the seed of each DistributedSeed."""
    graph: Graph
    savers: Mapping[str, Savers] = field(default_factory=dict)
    """By collector. The outputs of other nodes of the graph belong to the run as a whole."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    parts: tuple[Part, ...] = ()
    """Empty if the master does all the work; `gather` is then the whole workflow."""
    gather: Graph = field(default_factory=dict)
    """What the master does at last. Without parts it is ready for ComfyUI; else `gather_graph` completes it."""
    collectors: tuple[str, ...] = ()
    """The collectors that `gather_graph` needs files for."""
    notices: tuple[str, ...] = ()
    """Sentences for the log and the user: what differs from the request."""
    installed: Set[str] = frozenset()
    first_free_id: int = 1
    """The first number that is no id of a node in the whole workflow."""


def make_plan(
    graph: Graph,
    participants: Sequence[Participant],
    *,
    delegate_master: bool = False,
    installed: Set[str] = frozenset(),
) -> Plan:
    """Returns the plan of a workflow for these participants: the workers in the order of their seeds.

    `delegate_master`: the master renders no part; so it is also without a master among the participants.
    `installed`: node classes that every participant has; more workflows can be planned with some of them.
    Raises: InvalidRequest if a node cannot be replaced by plain ComfyUI nodes.
    """
    check_graph(graph)
    _check_participants(participants)
    notices: list[str] = []
    graph = _with_used_collectors(graph, notices)
    collectors = _active_collectors(graph, notices)
    workers = [each for each in participants if not each.is_master]
    masters = [each for each in participants if each.is_master]
    if delegate_master and (reason := _reason_against_delegation(graph, collectors, workers)):
        notices.append(reason)
        delegate_master = False
    if not collectors or not workers:
        whole = resolved(_without_collectors(graph, nodes_of(graph, COLLECTOR)), MASTER_INDEX, installed)
        return Plan(gather=whole, notices=tuple(notices), first_free_id=_first_free_id(graph))
    rendering = [] if delegate_master else masters
    behind = downstream(graph, collectors)
    own = [node_id for node_id in sink_ids(graph) if node_id not in behind]
    if own and not rendering:
        names = ", ".join(label(graph, node_id) for node_id in own)
        notices.append(f"The master renders nothing, so what no collector collects is not made: {names}")
    first = [node_id for node_id in collectors if node_id not in behind]
    parts = [_part(graph, each, MASTER_INDEX, first, own, installed) for each in rendering]
    parts += [_part(graph, each, i, collectors, [], installed) for i, each in enumerate(workers, start=1)]
    return Plan(
        parts=tuple(parts),
        gather=_gather(graph, collectors, behind, keeps_own=bool(rendering)),
        collectors=collectors,
        notices=tuple(notices),
        installed=installed,
        first_free_id=_first_free_id(graph),
    )


def _check_participants(participants: Sequence[Participant]) -> None:
    ids = [each.participant_id for each in participants]
    if not participants:
        raise InvalidRequest("No instance takes part")
    if len(set(ids)) < len(ids):
        raise InvalidRequest("An instance takes part twice")
    if sum(each.is_master for each in participants) > 1:
        raise InvalidRequest("Only one instance can be the master")


def _first_free_id(graph: Graph) -> int:
    return int(next(free_ids(graph)))


def _with_used_collectors(graph: Graph, notices: list[str]) -> Graph:
    """Saves what a collector collects for no other node: ComfyUI would run nothing."""
    unused = [node_id for node_id in sink_ids(graph) if graph[node_id]["class_type"] == COLLECTOR]
    ids = free_ids(graph)
    added: dict[str, Any] = {}
    for node_id in unused:
        added[next(ids)] = _image_saver([node_id, IMAGES_SLOT], "ComfyUI")
        if "audio" in inputs_of(graph, node_id):
            added[next(ids)] = _audio_saver([node_id, AUDIO_SLOT], "audio/ComfyUI")
        notices.append(f"{label(graph, node_id)}: no node uses its pictures, so they are saved")
    return {**graph, **added}


def _active_collectors(graph: Graph, notices: list[str]) -> tuple[str, ...]:
    """Returns the collectors that collect. Behind an upscaler a collector passes on what it gets."""
    upscalers = nodes_of(graph, UPSCALER)
    for node_id in upscalers:
        notices.append(f"{label(graph, node_id)} runs on the master alone")
    passing = downstream(graph, upscalers)
    return tuple(node_id for node_id in nodes_of(graph, COLLECTOR) if node_id not in passing)


def _reason_against_delegation(
    graph: Graph, collectors: Sequence[str], workers: Sequence[Participant]
) -> str | None:
    if not workers:
        return "No worker takes part, so the master renders the whole workflow"
    if nodes_of(graph, UPSCALER):
        return "A workflow with UltimateSDUpscaleDistributed cannot be left to the workers: the master renders too"
    if not collectors and distributed_nodes(graph):
        return "The workflow has no DistributedCollector, so the master renders it"
    return None


def _without_collectors(graph: Graph, collectors: Iterable[str]) -> dict[str, Any]:
    """Returns the graph in which these collectors pass on what they get."""
    links: dict[tuple[str, int], Any] = {}
    added: dict[str, Any] = {}
    ids = free_ids(graph)
    for node_id in collectors:
        links[node_id, IMAGES_SLOT] = collected_images(graph, node_id)
        audio = as_link(inputs_of(graph, node_id).get("audio"))
        if audio is None and _uses_audio(graph, node_id):
            silence = next(ids)
            added[silence] = empty_audio()
            audio = [silence, 0]
        links[node_id, AUDIO_SLOT] = audio
    kept = {node_id: node for node_id, node in graph.items() if node_id not in set(collectors)}
    return relinked({**kept, **added}, links)


def collected_images(graph: Graph, collector: str) -> Link:
    """Returns the link to the pictures of a collector. Raises: InvalidGraph."""
    link = as_link(inputs_of(graph, collector).get("images"))
    if link is None:
        raise InvalidGraph(f'{label(graph, collector)}: input "images" is not connected')
    return link


def _uses_audio(graph: Graph, collector: str) -> bool:
    links = (as_link(value) for node_id in graph for value in inputs_of(graph, node_id).values())
    return any(link is not None and link[0] == collector and int(link[1]) == AUDIO_SLOT for link in links)


def empty_audio() -> dict[str, Any]:
    """What a collector without audio gives: one sample of silence."""
    return new_node("EmptyAudio", "No audio", duration=1 / 44100, sample_rate=44100, channels=2)


def _image_saver(link: Link, prefix: str) -> dict[str, Any]:
    return new_node("SaveImage", "Save Image", images=link, filename_prefix=prefix)


def _audio_saver(link: Link, prefix: str) -> dict[str, Any]:
    return new_node("SaveAudio", "Save Audio", audio=link, filename_prefix=prefix)


def _part(
    graph: Graph,
    participant: Participant,
    seed_index: int,
    collectors: Sequence[str],
    own: Iterable[str],
    installed: Set[str],
) -> Part:
    """Returns the part of a participant: what these collectors and its own nodes need."""
    with_savers, savers = _with_savers(graph, collectors, seed_index)
    plain = resolved(_without_collectors(with_savers, nodes_of(graph, COLLECTOR)), seed_index, installed)
    present = {
        collector: Savers(
            images=each.images if each.images in plain else None,
            audio=each.audio if each.audio in plain else None,
        )
        for collector, each in savers.items()
    }
    targets = [node_id for each in present.values() for node_id in (each.images, each.audio) if node_id]
    targets += [node_id for node_id in own if node_id in plain]
    if not targets:
        raise InvalidGraph(
            f"{label(graph, collectors[0])} collects nothing: its images come from an empty batch"
        )
    return Part(
        participant_id=participant.participant_id,
        seed_index=seed_index,
        graph=pruned(plain, targets),
        savers=present,
    )


def _with_savers(
    graph: Graph, collectors: Sequence[str], seed_index: int
) -> tuple[dict[str, Any], dict[str, Savers]]:
    ids = free_ids(graph)
    added: dict[str, Any] = {}
    savers: dict[str, Savers] = {}
    for collector in collectors:
        prefix = f"distributed/{_file_name(collector)}_{seed_index}"
        images, audio = next(ids), None
        added[images] = _image_saver(collected_images(graph, collector), prefix)
        if (link := as_link(inputs_of(graph, collector).get("audio"))) is not None:
            audio = next(ids)
            added[audio] = _audio_saver(link, prefix)
        savers[collector] = Savers(images=images, audio=audio)
    return {**graph, **added}, savers


def _file_name(node_id: str) -> str:
    return "".join(char if char.isascii() and char.isalnum() else "-" for char in node_id)


def _gather(graph: Graph, collectors: Sequence[str], behind: Set[str], *, keeps_own: bool) -> dict[str, Any]:
    """Returns what lies behind the collectors and what else it needs. A collector stays, for `gather_graph`: with
    its inputs where the master's own pictures come from another collector, else without them."""
    cut = {
        node_id: {**node, "inputs": {}}
        if node_id in collectors and not (keeps_own and node_id in behind)
        else node
        for node_id, node in graph.items()
    }
    needed = upstream(cut, behind | set(collectors))
    return {node_id: node for node_id, node in cut.items() if node_id in needed}
