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


PLACES = [
    ("checkpoints/x.ckpt", ("/c/models/checkpoints", "x.ckpt")),
    ("models/checkpoints/sub/x.ckpt", ("/c/models/checkpoints", "sub/x.ckpt")),
    ("/opt/ComfyUI/models/upscale_models/x.pth", ("/big/upscale", "x.pth")),
    ("/data/models/ComfyUI/models/upscale_models/x.pth", ("/big/upscale", "x.pth")),
    ("/c/output/checkpoints/x.ckpt", ("/c/output/checkpoints", "x.ckpt")),
    ("checkpoints/models/x.ckpt", ("/c/models/checkpoints", "models/x.ckpt")),
    ("/opt/ComfyUI/models/of_a_pack/x.ckpt", ("/c/models/of_a_pack", "x.ckpt")),
]


@pytest.mark.parametrize("place", PLACES, ids=[path for path, _ in PLACES])
def test_the_path_of_another_machine_is_found_on_this_one(place: tuple[str, tuple[str, str]]) -> None:
    path, found = place
    assert ModelFolders(TOLD, "/c/input", lambda kind: NAMES[kind]).place_of(path) == found


REFUSED = [
    "/etc/x.ckpt",
    "custom_nodes/x.ckpt",
    "/c/custom_nodes/x.ckpt",
    "models/x.ckpt",
    "/c/models/checkpoints",
]


@pytest.mark.parametrize("path", REFUSED)
def test_a_path_in_no_folder_of_models_is_refused(path: str) -> None:
    with pytest.raises(ProvisionFailed, match="no folder"):
        ModelFolders(TOLD, "/c/input", lambda kind: NAMES[kind]).place_of(path)
