"""The plan of one workflow over several instances: what each of them renders, and what the master makes of
it.

The graph of a *part* is what one participant renders: all that a DistributedCollector needs, with SaveImage
(and SaveAudio) in place of the collector. The *gather* graph is what lies behind the collectors, for the
master, with loaders of the collected files in their place. Both have plain ComfyUI nodes only.

Everything is a pure function of the graph and the participants, so a plan need not be stored: the same call
gives the same plan. The order of the pictures is that of the parts: the master's, then the workers' in
theirs.
"""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from comfyui_workflow.distributed.collectors import audio_saver, image_saver, without_collectors
from comfyui_workflow.distributed.gather import gather_graph, gather_notices
from comfyui_workflow.distributed.model import (
    MASTER_INDEX,
    AudioFile,
    Collected,
    ImageFile,
    Part,
    Participant,
    Plan,
    Savers,
    audio_file,
    image_file,
)
from comfyui_workflow.distributed.nodes import (
    AUDIO_SLOT,
    COLLECTOR,
    IMAGES_SLOT,
    MODEL_NAME,
    UPSCALER,
    as_link,
    distributed_nodes,
    downstream,
    free_ids,
    inputs_of,
    label,
    needed_link,
    nodes_of,
    pruned,
    wants_load_balance,
)
from comfyui_workflow.distributed.resolution import resolved, runnable
from comfyui_workflow.distributed.sizes import sizes_of
from comfyui_workflow.errors import InvalidGraph, InvalidRequest
from comfyui_workflow.workflows.graph import Graph, check_graph, sink_ids

MANY = 1000
"""Stands for a number of pictures or samples that is not known before they are rendered."""

__all__ = (
    "AudioFile",
    "Collected",
    "ImageFile",
    "Part",
    "Participant",
    "Plan",
    "Savers",
    "audio_file",
    "distributed_nodes",
    "gather_graph",
    "gather_notices",
    "image_file",
    "make_plan",
    "wants_load_balance",
)


def make_plan(
    graph: Graph,
    participants: Sequence[Participant],
    *,
    delegate_master: bool = False,
    installed: Set[str] = frozenset(),
) -> Plan:
    """Returns the plan of a workflow for these participants: the workers in the order of their seeds.

    `delegate_master`: the master renders no part. Nor does it if it is not among the participants.
    `installed`: node classes that every participant has. Some workflows can only be planned with ComfyUI's
    ComfyMathExpression, or with nodes of ComfyUI-Distributed itself.
    Raises: InvalidRequest if the graph is none, or a node cannot be replaced by plain ComfyUI nodes.
    """
    check_graph(graph)
    _check_participants(participants)
    notices: list[str] = []
    planner = _Planner(graph=_with_used_collectors(graph, notices), installed=installed)
    workers = [each for each in participants if not each.is_master]
    rendering = [each for each in participants if each.is_master]
    notices += planner.upscaler_notices()
    if delegate_master:
        reason = planner.reason_against_delegation(workers)
        notices += [reason] if reason else []
        rendering = rendering if reason else []
    if not planner.collectors or not workers:
        return Plan(gather=planner.whole(), notices=tuple(notices), first_free_id=planner.first_free_id)
    parts = [planner.masters_part(each) for each in rendering]
    parts += [planner.workers_part(each, index) for index, each in enumerate(workers, MASTER_INDEX + 1)]
    plan = Plan(
        parts=tuple(parts),
        gather=planner.gather(masters_own=bool(rendering)),
        collectors=planner.collectors,
        notices=(*notices, *([] if rendering else planner.left_out())),
        installed=installed,
        first_free_id=planner.first_free_id,
    )
    gather_graph(plan, _expected(plan))
    return plan


def _check_participants(participants: Sequence[Participant]) -> None:
    ids = [each.participant_id for each in participants]
    if not participants:
        raise InvalidRequest("No instance takes part")
    if len(set(ids)) < len(ids):
        raise InvalidRequest("An instance takes part twice")
    if sum(each.is_master for each in participants) > 1:
        raise InvalidRequest("Only one instance can be the master")


def _with_used_collectors(graph: Graph, notices: list[str]) -> Graph:
    """Saves what a collector collects for no other node: ComfyUI would run nothing."""
    ids = free_ids(graph)
    added: dict[str, Any] = {}
    for node_id in sink_ids(graph):
        if graph[node_id]["class_type"] != COLLECTOR:
            continue
        added[next(ids)] = image_saver([node_id, IMAGES_SLOT], "ComfyUI")
        if as_link(inputs_of(graph, node_id).get("audio")):
            added[next(ids)] = audio_saver([node_id, AUDIO_SLOT], "audio/ComfyUI")
        notices.append(f"{label(graph, node_id)}: no node uses its pictures, so they are saved")
    return {**graph, **added}


def _expected(plan: Plan) -> dict[str, Collected]:
    """Stands for the files of all parts: the gather graph is tried before anything is rendered."""
    images: dict[str, list[ImageFile]] = {collector: [] for collector in plan.collectors}
    sounds: dict[str, list[AudioFile]] = {collector: [] for collector in plan.collectors}
    for part in plan.parts:
        sizes = sizes_of(part.graph)
        for collector, savers in part.savers.items():
            if savers.images:
                count = sizes.image_count(part.graph[savers.images]["inputs"]["images"])
                images[collector].append(ImageFile(name="", width=64, height=64, count=count or MANY))
            if savers.audio:
                sound = sizes.sound(part.graph[savers.audio]["inputs"]["audio"])
                samples, rate = (sound.samples, sound.sample_rate) if sound else (MANY, 44100)
                sounds[collector].append(AudioFile(name="", channels=2, sample_rate=rate, samples=samples))
    return {
        collector: Collected(images=tuple(images[collector]), audio=tuple(sounds[collector]))
        for collector in plan.collectors
    }


@dataclass(frozen=True, kw_only=True)
class _Planner:
    graph: Graph
    installed: Set[str]

    @cached_property
    def collectors(self) -> tuple[str, ...]:
        """The collectors that collect. Behind an upscaler a collector passes on what it gets."""
        passing = downstream(self.graph, nodes_of(self.graph, UPSCALER))
        return tuple(node_id for node_id in nodes_of(self.graph, COLLECTOR) if node_id not in passing)

    @cached_property
    def behind(self) -> Set[str]:
        return downstream(self.graph, self.collectors)

    @cached_property
    def first_free_id(self) -> int:
        return int(next(free_ids(self.graph)))

    def upscaler_notices(self) -> list[str]:
        return [
            f"{label(self.graph, node_id)} runs on the master alone"
            for node_id in nodes_of(self.graph, UPSCALER)
        ]

    def reason_against_delegation(self, workers: Sequence[Participant]) -> str | None:
        if not workers:
            return "No worker takes part, so the master renders the whole workflow"
        if nodes_of(self.graph, UPSCALER):
            return f"The master renders too: a workflow with {UPSCALER} cannot be left to the workers"
        if not self.collectors:
            return f"The workflow has no {COLLECTOR}, so the master renders it"
        return None

    def left_out(self) -> list[str]:
        """Returns what nobody renders if the master renders nothing."""
        made_at_last = self._upscaled()
        lost = [node_id for node_id in self._own_sinks() if node_id not in made_at_last]
        names = ", ".join(label(self.graph, node_id) for node_id in lost)
        return (
            [f"The master renders nothing, so what no collector collects is not made: {names}"]
            if names
            else []
        )

    def whole(self) -> Graph:
        """Returns the whole workflow for the master."""
        passing = without_collectors(self.graph, nodes_of(self.graph, COLLECTOR))
        plain = resolved(
            passing,
            MASTER_INDEX,
            installed=self.installed,
            shows_names=True,
            first_free_id=self.first_free_id,
        )
        return runnable(plain)

    def masters_part(self, participant: Participant) -> Part:
        """Returns what the master renders at first: also what no collector collects."""
        first = [node_id for node_id in self.collectors if node_id not in self.behind]
        return self._part(participant, MASTER_INDEX, first, self._own_sinks())

    def workers_part(self, participant: Participant, seed_index: int) -> Part:
        return self._part(participant, seed_index, self.collectors, [])

    def gather(self, *, masters_own: bool) -> Graph:
        """Returns what lies behind the collectors and what else it needs. A collector stays, for
        `gather_graph`: without inputs, except where its own pictures come from another collector."""
        cut = {
            node_id: {**node, "inputs": {}}
            if node_id in self.collectors and not (masters_own and node_id in self.behind)
            else node
            for node_id, node in self.graph.items()
        }
        passing = [node_id for node_id in nodes_of(self.graph, COLLECTOR) if node_id not in self.collectors]
        plain = without_collectors(cut, passing) if passing else cut
        sinks = {node_id for node_id in sink_ids(self.graph) if node_id in self.behind}
        needed = {*sinks, *self.collectors, *nodes_of(plain, MODEL_NAME)}
        if not masters_own:
            needed |= self._upscaled()
        return pruned(plain, needed & plain.keys())

    def _upscaled(self) -> Set[str]:
        upscalers = nodes_of(self.graph, UPSCALER)
        return {*upscalers, *downstream(self.graph, upscalers)}

    def _own_sinks(self) -> list[str]:
        behind = self.behind
        return [node_id for node_id in sink_ids(self.graph) if node_id not in behind]

    def _part(
        self, participant: Participant, seed_index: int, collectors: Sequence[str], own: Iterable[str]
    ) -> Part:
        graph, savers = self._with_savers(collectors, seed_index)
        saving = {node_id for each in savers.values() for node_id in (each.images, each.audio) if node_id}
        plain = resolved(
            pruned(without_collectors(graph, nodes_of(graph, COLLECTOR)), {*saving, *own}),
            seed_index,
            installed=self.installed,
            optional=saving,
            first_free_id=int(next(free_ids(graph))),
        )
        kept = {
            collector: Savers(
                images=each.images if each.images in plain else None,
                audio=each.audio if each.audio in plain else None,
            )
            for collector, each in savers.items()
        }
        targets = [node_id for node_id in (*saving, *own) if node_id in plain]
        if not targets:
            raise InvalidGraph(f"{label(self.graph, collectors[0])}: it would collect an empty batch")
        return Part(
            participant_id=participant.participant_id,
            seed_index=seed_index,
            graph=pruned(plain, targets),
            savers=kept,
        )

    def _with_savers(
        self, collectors: Sequence[str], seed_index: int
    ) -> tuple[dict[str, Any], dict[str, Savers]]:
        ids = free_ids(self.graph)
        added: dict[str, Any] = {}
        savers: dict[str, Savers] = {}
        for collector in collectors:
            prefix = f"distributed/{_file_name(collector)}_{seed_index}"
            images, audio = next(ids), None
            added[images] = image_saver(needed_link(self.graph, collector, "images"), prefix)
            if (link := as_link(inputs_of(self.graph, collector).get("audio"))) is not None:
                audio = next(ids)
                added[audio] = audio_saver(link, prefix)
            savers[collector] = Savers(images=images, audio=audio)
        return {**self.graph, **added}, savers


def _file_name(node_id: str) -> str:
    """Returns the id in a file name: ids of nodes in subgraphs have colons."""
    return "".join(char if char.isascii() and char.isalnum() else "-" for char in node_id)
