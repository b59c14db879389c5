"""Where the models of a workflow can be had: the editor's file, URLs in loaders, and what lacks."""

import pytest

from comfyui_workflow.workflows.model import GraphRequest, Workflow
from comfyui_workflow.workflows.model_sources import (
    ModelSource,
    direct_url,
    is_safe_path,
    is_url,
    key_of_url,
    lacking_models,
    name_of_url,
    sources_of,
    with_model_names,
)
from comfyui_workflow.workflows.node_definitions import Definitions

URL = "https://huggingface.co/org/repo/resolve/main/dir/model.safetensors"


def definitions(**choices: list[str]) -> Definitions:
    """Classes with one input each: the key is `Class__input`."""
    found: dict[str, object] = {}
    for key, values in choices.items():
        name, _, given = key.partition("__")
        found[name] = {"input": {"required": {given: [values]}}, "output": [], "output_node": True}
    found["Text"] = {"input": {"required": {"text": ["STRING", {}]}}, "output": [], "output_node": True}
    found["LoadImage"] = {
        "input": {"required": {"image": [["a.png"], {"image_upload": True}]}},
        "output": [],
        "output_node": True,
    }
    return Definitions(found)


def one(class_type: str, **inputs: object) -> dict[str, dict[str, object]]:
    return {"1": {"class_type": class_type, "inputs": inputs}}


def request(graph: object = None, editor_file: object = None, **inputs: object) -> GraphRequest:
    workflow = Workflow(graph=graph or {}, editor_file=editor_file)  # type: ignore[arg-type]
    return GraphRequest(workflow=workflow, inputs=inputs)


def declared(**more: object) -> dict[str, object]:
    return {"name": "m.safetensors", "url": URL, "directory": "checkpoints", **more}


def node(model: object) -> dict[str, object]:
    return {"id": 1, "type": "CheckpointLoaderSimple", "properties": {"models": [model]}}


@pytest.mark.parametrize(
    "editor_file",
    [
        {"nodes": [node(declared())]},
        {"nodes": [], "definitions": {"subgraphs": [{"id": "a", "nodes": [node(declared())]}]}},
        {
            "nodes": [],
            "definitions": {
                "subgraphs": [
                    {"id": "a", "nodes": [], "definitions": {"subgraphs": [{"nodes": [node(declared())]}]}}
                ]
            },
        },
        {"nodes": [], "models": [declared()]},
    ],
)
def test_the_editor_file_names_sources_in_every_place(editor_file: object) -> None:
    (found,) = sources_of(request(editor_file=editor_file))["m.safetensors"]
    assert found == ModelSource(name="m.safetensors", url=URL, folder="checkpoints")


@pytest.mark.parametrize(
    "model",
    [
        None,
        5,
        "m",
        {},
        declared(name=None),
        declared(name="../m.safetensors"),
        declared(name=".m.safetensors"),
        declared(url="ftp://host/m"),
        declared(url="file:///etc/passwd"),
        declared(url=["x"]),
        declared(url="https://a b/m"),
    ],
)
def test_a_source_that_cannot_be_used_is_left_out(model: object) -> None:
    assert "m.safetensors" not in sources_of(request(editor_file={"nodes": [node(model)]}))


def test_hashes_and_old_names_of_folders_are_understood() -> None:
    model = declared(hash="AB" * 32, hash_type="SHA256", directory="unet")
    (found,) = sources_of(request(editor_file={"nodes": [node(model)]}))["m.safetensors"]
    assert (found.sha256, found.folder) == ("ab" * 32, "diffusion_models")
    model = declared(hash="1234", hash_type="AutoV2", directory="../out")
    (found,) = sources_of(request(editor_file={"nodes": [node(model)]}))["m.safetensors"]
    assert (found.sha256, found.folder) == (None, None)


def test_a_url_becomes_a_name_of_its_own() -> None:
    assert name_of_url(URL) == f"model-{key_of_url(URL)[:10]}.safetensors"
    assert name_of_url(URL) != name_of_url(URL.replace("repo", "other"))
    civitai = "https://civitai.com/api/download/models/128713?type=Model&format=PickleTensor&token=x"
    assert name_of_url(civitai) == f"128713-{key_of_url(civitai)[:10]}.ckpt"
    assert name_of_url("https://h/").startswith("model-")
    assert is_safe_path(name_of_url("https://h/%2e%2e%2f%2e%2e%2fetc%2fpasswd.ckpt"))
    assert direct_url("https://huggingface.co/o/r/blob/main/a.ckpt") == (
        "https://huggingface.co/o/r/resolve/main/a.ckpt"
    )


@pytest.mark.parametrize(
    "value", [5, None, "", "a.ckpt", "ftp://x/y", "http:///x", "http://a b", "text http://x/y"]
)
def test_what_is_no_url(value: object) -> None:
    assert not is_url(value)


def test_only_the_url_of_a_loader_is_replaced() -> None:
    classes = definitions(CheckpointLoaderSimple__ckpt_name=["a.ckpt"])
    named = with_model_names(one("CheckpointLoaderSimple", ckpt_name=URL), classes)
    assert named["1"]["inputs"] == {"ckpt_name": name_of_url(URL)}
    for graph in (one("Text", text=URL), one("LoadImage", image=URL), one("Unknown", ckpt_name=URL)):
        assert with_model_names(graph, classes) is graph


@pytest.mark.parametrize(
    "key, folder",
    [
        ("CheckpointLoaderSimple__ckpt_name", "checkpoints"),
        ("CLIPVisionLoader__clip_name", "clip_vision"),
        ("CLIPLoader__clip_name", "text_encoders"),
        ("UNETLoader__unet_name", "diffusion_models"),
        ("LoraLoader__lora_name", "loras"),
        ("UpscaleModelLoader__model_name", "upscale_models"),
        ("SomethingElse__model_name", None),
    ],
)
def test_a_loader_tells_the_folder(key: str, folder: str | None) -> None:
    class_type, _, name = key.partition("__")
    graph = with_model_names(one(class_type, **{name: URL}), definitions(**{key: ["a.ckpt"]}))
    (lacking,) = lacking_models(graph, definitions(**{key: ["a.ckpt"]}), sources_of(request(one("X", a=URL))))
    assert (lacking.folder, lacking.name) == (folder, name_of_url(URL))
    assert lacking.source is not None
    assert lacking.source.url == URL


def test_what_the_instance_has_does_not_lack() -> None:
    classes = definitions(CheckpointLoaderSimple__ckpt_name=["SDXL/m.safetensors"], Other__mode=["a", "b"])
    sources = sources_of(request(editor_file={"nodes": [node(declared())]}))
    has = one("CheckpointLoaderSimple", ckpt_name="SDXL/m.safetensors")
    assert lacking_models(has, classes, sources) == []
    assert lacking_models(one("Other", mode="c"), classes, sources) == []
    (lacking,) = lacking_models(one("CheckpointLoaderSimple", ckpt_name="x\\m.safetensors"), classes, sources)
    assert (lacking.name, lacking.folder) == ("x/m.safetensors", "checkpoints")
    (unknown,) = lacking_models(one("CheckpointLoaderSimple", ckpt_name="other.ckpt"), classes, sources)
    assert unknown.source is None


def test_two_models_of_one_name_are_told_apart_by_their_folders() -> None:
    other = declared(url=f"{URL}2", directory="vae")
    sources = sources_of(request(editor_file={"nodes": [node(declared()), node(other)]}))
    classes = definitions(VAELoader__vae_name=[])
    (lacking,) = lacking_models(one("VAELoader", vae_name="m.safetensors"), classes, sources)
    assert lacking.source is not None
    assert lacking.source.url == f"{URL}2"


@pytest.mark.parametrize("name", ["", "../a", "a/../b", "/a", ".a", "a/.b", "a\\b", "a\nb", "a//b"])
def test_unsafe_names(name: str) -> None:
    assert not is_safe_path(name)
