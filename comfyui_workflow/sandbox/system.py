"""Data about the machine and its directories: /system_stats, /models, /internal/folder_paths."""

import os
import sys
from pathlib import Path
from typing import Any

from comfyui_workflow.sandbox.node import Folders
from comfyui_workflow.sandbox.versions import Version

_MODEL_FOLDERS = (
    "checkpoints", "configs", "loras", "vae", "text_encoders", "diffusion_models", "clip_vision",
    "style_models", "embeddings", "diffusers", "vae_approx", "controlnet", "gligen", "upscale_models",
    "custom_nodes", "hypernetworks", "photomaker", "classifiers", "model_patches", "audio_encoders",
)  # fmt: skip
_ALSO_IN_OUTPUT = ("checkpoints", "loras", "vae", "diffusion_models")

_PACKAGES = {
    "comfyui-frontend-package": "1.49.6",
    "comfyui-workflow-templates": "0.11.44",
    "comfyui-embedded-docs": "0.5.10",
    "comfy-kitchen": "0.2.31",
    "comfy-aimdo": "0.4.13",
}
_PARTS: dict[Version, dict[str, Any]] = {
    Version.V0_33_0: {
        "required_frontend_version": "1.49.6",
        "installed_templates_version": "0.11.44",
        "required_templates_version": "0.11.44",
        "comfy_package_versions": [
            {"name": name, "installed": version, "required": version} for name, version in _PACKAGES.items()
        ],
    },
    Version.V0_8_0: {
        "required_frontend_version": "1.35.9",
        "installed_templates_version": "0.7.67",
        "required_templates_version": "0.7.67",
    },
    Version.V0_3_64: {
        "required_frontend_version": "1.27.10",
        "installed_templates_version": "0.1.95",
        "required_templates_version": "0.1.95",
    },
    Version.V0_3_41: {},
}


def serialize_system(
    *, version: Version, address: tuple[str, int], folders: Folders, preview: str
) -> dict[str, Any]:
    """Returns the response to GET /system_stats; `argv` is the command line of a real server."""
    total_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    system = {
        "os": sys.platform if version.lists_jobs else os.name,
        "ram_total": total_bytes,
        "ram_free": free_bytes,
        "comfyui_version": version,
        **_PARTS[version],
        "python_version": sys.version,
        "pytorch_version": "none (sandbox)",
        "embedded_python": False,
        **({"deploy_environment": "local-git"} if version.cancels_jobs else {}),
        "argv": _argv(address, folders, preview),
    }
    device = {
        "name": "cpu (sandbox: no GPU)",
        "type": "cpu",
        "index": None,
        "vram_total": total_bytes,
        "vram_free": free_bytes,
        "torch_vram_total": total_bytes,
        "torch_vram_free": free_bytes,
    }
    return {"system": system, "devices": [device]}


def _argv(address: tuple[str, int], folders: Folders, preview: str) -> list[str]:
    host, port = address
    directories = ["--input-directory", str(folders.input_dir), "--output-directory", str(folders.output_dir)]
    return ["main.py", "--listen", host, "--port", str(port), *directories, "--preview-method", preview]


def model_folders(folders: Folders) -> dict[str, list[str]]:
    """Returns absolute directories by kind of model. Some kinds have a second one in the output directory."""
    base = folders.output_dir.absolute().parent
    paths = {kind: [str(base / "models" / kind)] for kind in _MODEL_FOLDERS}
    paths["custom_nodes"] = [str(base / "custom_nodes")]
    for kind in _ALSO_IN_OUTPUT:
        paths[kind].append(str(folders.output_dir.absolute() / kind))
    return paths


def models_in(kind: str, folders: Folders) -> list[str] | None:
    """Returns the files of a kind of model; None if the kind does not exist."""
    if kind not in _MODEL_FOLDERS or kind == "configs":
        return None
    directories = [Path(path) for path in model_folders(folders)[kind]]
    return sorted(
        file.name for directory in directories if directory.is_dir() for file in directory.iterdir()
    )


def newest_files(directory: Path) -> list[str]:
    """Returns the names of the visible files in a directory, newest first."""
    files = [path for path in directory.iterdir() if path.is_file() and not path.name.startswith(".")]
    return [file.name for file in sorted(files, key=lambda file: -file.stat().st_mtime)]
