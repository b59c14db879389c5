"""The graph with which the master makes the result of what all participants rendered."""

from collections.abc import Mapping

from comfyui_workflow.distributed.collectors import Loaders
from comfyui_workflow.distributed.model import MASTER_INDEX, Collected, Plan
from comfyui_workflow.distributed.nodes import (
    AUDIO_SLOT,
    COLLECTOR,
    IMAGES_SLOT,
    Link,
    as_link,
    free_ids,
    inputs_of,
    label,
    relinked,
    used_outputs,
)
from comfyui_workflow.distributed.resolution import resolved, runnable
from comfyui_workflow.distributed.sizes import Sizes, Sound
from comfyui_workflow.errors import InvalidRequest
from comfyui_workflow.workflows.graph import Graph


def gather_graph(plan: Plan, collected: Mapping[str, Collected]) -> Graph:
    """Returns the graph for the master, of plain ComfyUI nodes.

    Raises: InvalidRequest if nothing was collected for a collector, or a node cannot be replaced.
    """
    if not plan.parts:
        return plan.gather
    ids = free_ids(plan.gather, plan.first_free_id)
    loaders = Loaders(ids)
    used, links = used_outputs(plan.gather), dict[tuple[str, int], Link]()
    for collector in plan.collectors:
        files = collected.get(collector, Collected())
        if (collector, IMAGES_SLOT) in used:
            own = as_link(inputs_of(plan.gather, collector).get("images"))
            images = loaders.load_images(own, files.images)
            if images is None:
                raise InvalidRequest(f"{label(plan.gather, collector)}: no pictures were collected")
            links[collector, IMAGES_SLOT] = images
        if (collector, AUDIO_SLOT) in used:
            own = as_link(inputs_of(plan.gather, collector).get("audio"))
            links[collector, AUDIO_SLOT] = loaders.load_audio(own, files.audio)
    kept = {node_id: node for node_id, node in plan.gather.items() if node["class_type"] != COLLECTOR}
    graph = relinked({**kept, **loaders.nodes}, links)
    sounds = {
        output: Sound(samples=file.samples, sample_rate=file.sample_rate)
        for output, file in loaders.audio.items()
    }
    sizes = Sizes(images=dict(loaders.images), audio=sounds)
    plain = resolved(
        graph,
        MASTER_INDEX,
        installed=plan.installed,
        sizes=sizes,
        shows_names=True,
        first_free_id=int(next(ids)),
    )
    return runnable(plain)


def gather_notices(plan: Plan, collected: Mapping[str, Collected]) -> tuple[str, ...]:
    """Returns sentences on what is changed to put the files together."""
    notices = []
    for collector in plan.collectors:
        files = collected.get(collector, Collected())
        name = label(plan.gather, collector)
        sizes = list(dict.fromkeys(f"{file.width}x{file.height}" for file in files.images))
        if len(sizes) > 1:
            others = ", ".join(sizes[1:])
            notices.append(f"{name}: pictures of {others} are scaled to the first size, {sizes[0]}")
        if len({file.has_alpha for file in files.images}) > 1:
            notices.append(f"{name}: pictures without an alpha channel get one")
        if len({(file.channels, file.sample_rate) for file in files.audio}) > 1:
            notices.append(f"{name}: sounds of different sample rates or channels are converted")
    return tuple(notices)
