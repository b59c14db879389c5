"""Tests of the directories that are derived from responses as a real ComfyUI sends them."""

from typing import Any

import pytest

from comfyui_workflow.comfyui.folders import Directories, read_directories

KINDS = ("checkpoints", "loras", "vae", "diffusion_models")


def folder_paths(base: str, output: str) -> dict[str, Any]:
    kinds = {kind: [f"{base}/models/{kind}", f"{output}/{kind}"] for kind in KINDS}
    return {**kinds, "configs": [f"{base}/models/configs"], "custom_nodes": [f"{base}/custom_nodes"]}


def test_without_options_all_lie_below_the_base() -> None:
    found = read_directories(folder_paths("/opt/ComfyUI", "/opt/ComfyUI/output"), ["main.py", "--cpu"])
    assert found == Directories(
        input_dir="/opt/ComfyUI/input", output_dir="/opt/ComfyUI/output", temp_dir="/opt/ComfyUI/temp"
    )


def test_options_win_and_the_one_for_temp_names_its_parent() -> None:
    argv = ["main.py", "--input-directory", "/in", "--output-directory=/out", "--temp-directory", "/scratch"]
    found = read_directories(folder_paths("/c", "/out"), argv)
    assert found == Directories(input_dir="/in", output_dir="/out", temp_dir="/scratch/temp")


def test_the_output_directory_shows_in_the_paths_of_models() -> None:
    paths = folder_paths("/c", "/data/results")
    paths["checkpoints"].append("/volume/models/checkpoints")
    assert read_directories(paths, None).output_dir == "/data/results"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["/image/ComfyUI/main.py"], "/image/ComfyUI"),
        (["main.py", "--base-directory", "/volume/data"], "/volume/data"),
        (["/image/ComfyUI/main.py", "--base-directory=/volume/data/"], "/volume/data"),
        (["main.py", "--base-directory", "data"], "/shared"),
        (["/usr/bin/comfy", "launch"], "/shared"),
    ],
)
def test_the_command_line_tells_the_base_before_directories_that_others_share(
    argv: list[str], expected: str
) -> None:
    """The custom nodes are on a volume that another ComfyUI shares."""
    found = read_directories({"custom_nodes": ["/shared/custom_nodes"]}, argv)
    assert found == Directories(
        input_dir=f"{expected}/input", output_dir=f"{expected}/output", temp_dir=f"{expected}/temp"
    )


def test_a_relative_option_counts_from_the_directory_of_the_program_or_is_unknown() -> None:
    options = ["--input-directory", "../gpu1/in", "--output-directory=out", "--temp-directory", "."]
    paths = {"custom_nodes": ["/opt/ComfyUI/custom_nodes"]}
    assert read_directories(paths, ["main.py", *options]) == Directories(
        input_dir="/opt/gpu1/in", output_dir="/opt/ComfyUI/out", temp_dir="/opt/ComfyUI/temp"
    )
    assert read_directories(paths, ["ComfyUI/main.py", *options]) == Directories()
    known = read_directories(folder_paths("/opt/ComfyUI", "/elsewhere/out"), ["ComfyUI/main.py", *options])
    assert known == Directories(output_dir="/elsewhere/out")


@pytest.mark.parametrize("paths", [{}, {"custom_nodes": "x"}, {"custom_nodes": [5, "relative/custom_nodes"]}])
@pytest.mark.parametrize("argv", [None, "main.py", [1, "--output-directory"], ["--output-directory", "out"]])
def test_what_is_not_told_is_none(paths: dict[str, Any], argv: object) -> None:
    assert read_directories(paths, argv) == Directories()
