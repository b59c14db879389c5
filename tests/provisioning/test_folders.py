"""The directory for a model, as ComfyUI tells it."""

import pytest

from comfyui_workflow.errors import ProvisionFailed
from comfyui_workflow.provisioning.folders import ModelFolders
from comfyui_workflow.workflows.model_sources import LackingModel

TOLD = {
    "checkpoints": ["/c/models/checkpoints", "/c/output/checkpoints"],
    "upscale_models": ["/big/upscale"],
    "custom_nodes": ["/c/custom_nodes"],
}
NAMES = {"checkpoints": ["a.ckpt"], "upscale_models": ["u.pth", "v.pth"], "custom_nodes": ["a.ckpt", "u.pth"]}


def folder_of(folder: str | None, choices: tuple[str, ...] = (), *, is_told: bool = True) -> str:
    lacking = LackingModel(
        name="x.ckpt",
        folder=folder,
        source=None,
        node_id="1",
        class_type="A",
        input_name="b",
        choices=choices,
    )
    told = TOLD if is_told else {}
    return ModelFolders(told, "/c/input", lambda kind: NAMES[kind]).directory_for(lacking)


def test_comfyui_tells_the_directories() -> None:
    assert folder_of("checkpoints") == "/c/models/checkpoints"
    assert folder_of("upscale_models") == "/big/upscale"
    assert folder_of("of_a_pack") == "/c/models/of_a_pack"
    assert folder_of("vae", is_told=False) == "/c/models/vae"


def test_the_choices_of_an_input_tell_the_kind() -> None:
    assert folder_of(None, ("u.pth", "v.pth", "none")) == "/big/upscale"


@pytest.mark.parametrize("folder", ["custom_nodes", "../x", "/etc", ".ssh"])
def test_no_other_directory_is_written(folder: str) -> None:
    with pytest.raises(ProvisionFailed, match="no folder for models"):
        folder_of(folder)


def test_a_kind_that_nothing_tells_is_an_error() -> None:
    with pytest.raises(ProvisionFailed, match="Nothing tells into which folder"):
        folder_of(None, ("some", "thing"))
    with pytest.raises(ProvisionFailed, match="Nothing tells"):
        folder_of(None)
