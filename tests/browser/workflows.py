"""Workflows as local files."""

import json
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

Json = dict[str, Any]
DEMO = Path(__file__).parents[2] / "comfyui_workflow" / "demo" / "text_to_image.json"
CHECKPOINT = "sandbox-stand-in.safetensors"


def text_to_image(**sampler: object) -> Json:
    """A graph of seven nodes; the sampler sends previews and steps."""
    graph: Json = json.loads(DEMO.read_text())
    graph["3"]["inputs"] |= sampler
    graph["5"]["inputs"] |= {"width": 128, "height": 96}
    return graph


def titled(graph: Json, **titles: str) -> Json:
    """Adds titles to nodes: `titled(graph, n2="…")`."""
    for name, title in titles.items():
        graph[name.removeprefix("n")]["_meta"] = {"title": title}
    return graph


def for_the_editor(color: int = 255) -> Json:
    """Two nodes in the editor's format."""
    nodes = [
        {
            "id": 1,
            "type": "EmptyImage",
            "title": "A plain picture",
            "mode": 0,
            "inputs": [],
            "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}],
            "widgets_values": [48, 32, 1, color],
        },
        {
            "id": 2,
            "type": "SaveImage",
            "mode": 0,
            "inputs": [{"name": "images", "type": "IMAGE", "link": 1}],
            "outputs": [],
            "widgets_values": ["from_the_editor"],
        },
    ]
    return {"nodes": nodes, "links": [[1, 1, 0, 2, 0, "IMAGE"]], "version": 0.4}


def saved(path: Path, workflow: Json) -> Path:
    path.write_text(json.dumps(workflow))
    return path


def inside_a_picture(path: Path, graph: Json) -> Path:
    """Creates a picture with an embedded workflow, like ComfyUI."""
    about = PngInfo()
    about.add_text("prompt", json.dumps(graph))
    Image.new("RGB", (16, 16), "green").save(path, pnginfo=about)
    return path


def picture(path: Path, color: str = "red", size: tuple[int, int] = (60, 40)) -> Path:
    Image.new("RGB", size, color).save(path)
    return path
