"""Workflows in editor format, with nodes of the sandbox."""

import json
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

EDITOR_FILE: dict[str, Any] = {
    "version": 0.4,
    "last_node_id": 3,
    "last_link_id": 2,
    "nodes": [
        {
            "id": 1,
            "type": "EmptyImage",
            "title": "Paper",
            "mode": 0,
            "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [1]}],
            "widgets_values": [64, 48, 1, 0],
        },
        {
            "id": 2,
            "type": "ImageBlur",
            "mode": 0,
            "inputs": [{"name": "image", "type": "IMAGE", "link": 1}],
            "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [2]}],
            "widgets_values": [3, 1.0],
        },
        {
            "id": 3,
            "type": "SaveImage",
            "mode": 0,
            "inputs": [{"name": "images", "type": "IMAGE", "link": 2}],
            "widgets_values": ["paper"],
        },
    ],
    "links": [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]],
}


def editor_file(path: Path, *more_nodes: dict[str, Any]) -> Path:
    path.write_text(json.dumps({**EDITOR_FILE, "nodes": [*EDITOR_FILE["nodes"], *more_nodes]}))
    return path


def picture_of(path: Path, **texts: object) -> Path:
    """A PNG as ComfyUI saves it, with `prompt` and `workflow` inside."""
    info = PngInfo()
    for name, value in texts.items():
        info.add_text(name, json.dumps(value))
    Image.new("RGB", (4, 4)).save(path, pnginfo=info)
    return path
