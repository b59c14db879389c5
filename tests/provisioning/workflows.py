"""Workflows with one model: as a graph, and as the editor saves them with the source of the model."""

from typing import Any

Json = dict[str, Any]


def graph(checkpoint: str) -> Json:
    """Decodes an empty latent with the VAE of the checkpoint."""
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}},
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["1", 2]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "made"}},
    }


def editor_file(name: str, url: str, **more: Any) -> Json:
    """The same, as the editor saves it, with the source of the model in its loader."""
    model = {"name": name, "url": url, "directory": "checkpoints", **more}
    loader = {
        "id": 1,
        "type": "CheckpointLoaderSimple",
        "mode": 0,
        "inputs": [],
        "outputs": [
            {"name": "MODEL", "type": "MODEL", "links": []},
            {"name": "CLIP", "type": "CLIP", "links": []},
            {"name": "VAE", "type": "VAE", "links": [1]},
        ],
        "properties": {"models": [model], "cnr_id": "comfy-core"},
        "widgets_values": [name],
    }
    latent = {
        "id": 2,
        "type": "EmptyLatentImage",
        "mode": 0,
        "inputs": [],
        "outputs": [{"name": "LATENT", "type": "LATENT", "links": [2]}],
        "widgets_values": [64, 64, 1],
    }
    decode = {
        "id": 3,
        "type": "VAEDecode",
        "mode": 0,
        "inputs": [
            {"name": "samples", "type": "LATENT", "link": 2},
            {"name": "vae", "type": "VAE", "link": 1},
        ],
        "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [3]}],
        "widgets_values": [],
    }
    save = {
        "id": 4,
        "type": "SaveImage",
        "mode": 0,
        "inputs": [{"name": "images", "type": "IMAGE", "link": 3}],
        "outputs": [],
        "widgets_values": ["made"],
    }
    links = [[1, 1, 2, 3, 1, "VAE"], [2, 2, 0, 3, 0, "LATENT"], [3, 3, 0, 4, 0, "IMAGE"]]
    return {"nodes": [loader, latent, decode, save], "links": links, "version": 0.4}
