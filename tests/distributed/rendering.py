"""Renders a plan: the parts and the gather graph, one after the other, on one sandbox ComfyUI."""

from pathlib import Path
from typing import Any

from PIL import Image

from comfyui_workflow.distributed.apng import groups, read_png, write_animation
from comfyui_workflow.distributed.plan import Collected, Plan, gather_graph, image_file
from comfyui_workflow.workflows.graph import Graph
from tests.sandbox.running_comfyui import RunningComfyUI

Outputs = dict[str, Any]


def render(comfyui: RunningComfyUI, plan: Plan) -> Outputs:
    """Returns the pictures and texts of each output node, but not what parts only save for the master."""
    shown: Outputs = {}
    saved: dict[str, list[Path]] = {collector: [] for collector in plan.collectors}
    for part in plan.parts:
        outputs = run(comfyui, part.graph)
        for collector, savers in part.savers.items():
            if savers.images:
                saved[collector] += paths(comfyui, outputs.pop(savers.images))
        shown |= decoded(comfyui, outputs)
    collected = {collector: collect(comfyui, collector, files) for collector, files in saved.items()}
    return shown | decoded(comfyui, run(comfyui, gather_graph(plan, collected)))


def collect(comfyui: RunningComfyUI, collector: str, files: list[Path]) -> Collected:
    folder = comfyui.folders.input_dir / "distributed"
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for number, group in enumerate(groups([read_png(path) for path in files])):
        name = f"{collector}_{number}.png"
        with (folder / name).open("wb") as target:
            write_animation(group, target)
        images.append(image_file(f"distributed/{name}", group))
    return Collected(images=tuple(images))


def run(comfyui: RunningComfyUI, graph: Graph) -> dict[str, Any]:
    """Returns the outputs of the prompt, by node."""
    entry = comfyui.wait_for(comfyui.submit(dict(graph)))
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"]
    return dict(entry["outputs"])


def paths(comfyui: RunningComfyUI, output: dict[str, Any]) -> list[Path]:
    folders = {"output": comfyui.folders.output_dir, "temp": comfyui.folders.temp_dir}
    return [folders[file["type"]] / file["subfolder"] / file["filename"] for file in output["images"]]


def decoded(comfyui: RunningComfyUI, outputs: dict[str, Any]) -> Outputs:
    return {
        node_id: [picture(path) for path in paths(comfyui, output)] if "images" in output else output
        for node_id, output in outputs.items()
    }


def picture(path: Path) -> dict[str, Any]:
    """Returns a picture as the recordings have it."""
    with Image.open(path) as image:
        content, width, bands = image.tobytes(), image.width, len(image.getbands())
        first, line = content[:bands], width * bands
        rows = [content[start : start + line].hex() for start in range(0, len(content), line)]
        is_plain = content == first * (len(content) // bands)
        return {"size": list(image.size), "mode": image.mode, "pixels": first.hex() if is_plain else rows}
